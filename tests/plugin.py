"""Starts the servers that the tests need before pytest-django reads the settings; `-p no:django` runs without them.

Several processes may share the tests out (`-n 2`): each then has servers of its own, as one process has.
"""

import os

import pytest

STARTED = "TENANTRY_TESTS_STARTED"  # the variables that a session has added for its own servers


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    if early_config.pluginmanager.is_blocked("django"):
        return
    from tests.servers import start_test_servers  # only where servers are wanted

    for name in filter(None, os.environ.pop(STARTED, "").split(",")):
        os.environ.pop(name, None)
    environment = start_test_servers()
    os.environ.update(environment, **{STARTED: ",".join(environment)})
