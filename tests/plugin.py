"""Starts the servers that the tests need before pytest-django reads the settings; `-p no:django` runs without them.

Several processes may share the tests out (`-n 2`): each then has servers of its own, as one process has.
"""

import os

import pytest

STARTED = "TENANTRY_TESTS_STARTED"  # the variables that a session has added for its own servers
SHARE_A_PLATFORM = (
    "tests/acceptance/test_pages.py",
    "tests/acceptance/test_story.py",
    "tests/acceptance/test_training.py",
    "tests/acceptance/test_switch",
)
# What takes longest goes first, so that no process waits for another one's last file.
FIRST = (
    *SHARE_A_PLATFORM,
    "tests/test_hostile_input.py",
    "tests/acceptance/",
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
    """Keep the tests of a file in one process, and those that share a running platform."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        group = "platform" if file.startswith(SHARE_A_PLATFORM) else file
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    return next((place for place, start in enumerate(FIRST) if item.nodeid.startswith(start)), len(FIRST))
