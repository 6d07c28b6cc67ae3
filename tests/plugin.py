"""Starts the servers that the tests need before pytest-django reads the settings; `-p no:django` runs without them.

Several processes may share the tests out (`-n 2`): each then has servers of its own, as one process has.
"""

import os

import pytest

STARTED = "TENANTRY_TESTS_STARTED"  # the variables that a session has added for its own servers
# What takes longest goes first, so that no process waits for another one's last file.
FIRST = (
    "tests/acceptance/test_failures.py",
    "tests/acceptance/",
    "tests/test_hostile_input.py",
    "tests/runtimes/test_compilation.py",
    "tests/runtimes/test_attack",
    "tests/runtimes/test_bad_files.py",
    "tests/models_registry/",
)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    if early_config.pluginmanager.is_blocked("django"):
        return
    from tests.servers import start_test_servers  # only where servers are wanted

    for name in filter(None, os.environ.pop(STARTED, "").split(",")):
        os.environ.pop(name, None)
    environment = start_test_servers()
    os.environ.update(environment, **{STARTED: ",".join(environment)})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; `--no-loadscope-reorder` keeps them there."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    return next((place for place, start in enumerate(FIRST) if item.nodeid.startswith(start)), len(FIRST))
