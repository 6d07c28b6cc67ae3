"""Starts the servers that the tests need before pytest-django reads the settings; `-p no:django` runs without them."""

import os

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    if early_config.pluginmanager.is_blocked("django"):
        return
    from tests.servers import start_test_servers  # only where servers are wanted

    os.environ.update(start_test_servers())
