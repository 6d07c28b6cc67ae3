"""Whose a request is by its path and its host name."""

import pytest

from tenants.models import Domain, Tenant
from tests.clients import TenantClient, client_of

HOST = "models.acme.test"


@pytest.fixture(autouse=True)
def _host(acme: Tenant) -> None:
    Domain.objects.create(domain=HOST, tenant=acme, is_primary=True)


@pytest.mark.parametrize("host", [HOST, f"{HOST}.", HOST.upper(), f"{HOST}:8000"])
def test_a_tenants_own_host_is_the_tenants_however_it_is_written(acme: Tenant, host: str) -> None:
    client = TenantClient("", client_of(acme).token)

    assert client.get("api/v1/whoami", HTTP_HOST=host).json()["tenantId"] == "acme"
    assert client.get("api/v1/tenants", HTTP_HOST=host).status_code == 404  # the operator's surface is not there


def test_a_host_serves_its_own_tenants_address_and_no_others(acme: Tenant, globex: Tenant) -> None:
    assert client_of(acme).get("api/v1/whoami", HTTP_HOST=HOST).status_code == 200
    assert client_of(globex).get("api/v1/whoami", HTTP_HOST=HOST).status_code == 401
    assert client_of(globex).get("login", HTTP_HOST=HOST).status_code == 404
    assert client_of(globex).get("login").status_code == 200


def test_the_host_of_a_tenant_that_is_being_deleted_is_unknown(acme: Tenant) -> None:
    Tenant.objects.filter(pk=acme.pk).update(state="deleting")

    assert TenantClient("").get("login", HTTP_HOST=HOST).status_code == 404
    assert TenantClient("").get("api/v1/tenants", HTTP_HOST=HOST).status_code == 401
    assert TenantClient("/t/acme").get("login").status_code == 404
