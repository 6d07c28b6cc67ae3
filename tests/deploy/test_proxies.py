"""Whose attempts to log in are counted together, behind proxies."""

import pytest
from django.test import RequestFactory
from pytest_django import Settings

from tenants.login import address_of


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, "6.6.6.6", "127.0.0.1"),
        (1, "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        (2, "6.6.6.6, 1.2.3.4, 10.0.0.1", "1.2.3.4"),
        (2, "1.2.3.4", "127.0.0.1"),
    ],
)
def test_a_client_cannot_choose_its_address(settings: Settings, proxies: int, forwarded: str, address: str) -> None:
    settings.PROXY_COUNT = proxies
    request = RequestFactory().get("/", headers={"X-Forwarded-For": forwarded})
    assert address_of(request) == address
