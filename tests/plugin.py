"""Starts the servers that the tests need before pytest-django reads the settings; `-p no:django` runs without them.

Several processes may share the tests out (`-n 2`): each then has servers of its own, as one process has. The process
that deals the tests out runs none and has none.
"""

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

STARTED = "TENANTRY_TESTS_STARTED"  # the variables that a session has added for its own servers
# What takes longest goes first, so that no process waits for another one's last file.
FIRST = (
    "tests/acceptance/test_story.py",  # measures a platform that nobody has used much
    "tests/acceptance/",
    "tests/acceptance/test_failures.py",  # kills the parts of the platform that the others have used
    "tests/test_hostile_input.py",
    "tests/runtimes/test_compilation.py",
    "tests/runtimes/test_attack",
    "tests/runtimes/test_bad_files.py",
    "tests/models_registry/",
)
# The files of these folders share what is expensive to start, so one process runs all of them.
TOGETHER = ("tests/acceptance/",)


class Sharing(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist's own
    """Each process takes a file, or a whole folder of those in TOGETHER."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in TOGETHER if nodeid.startswith(folder)), super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Sharing | None:
    return Sharing(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    if early_config.pluginmanager.is_blocked("django"):
        return
    for name in filter(None, os.environ.pop(STARTED, "").split(",")):
        os.environ.pop(name, None)
    environment = _settings_alone(early_config) if _deals_out(early_config) else _servers()
    os.environ.update(environment, **{STARTED: ",".join(environment)})


def _deals_out(config: pytest.Config) -> bool:
    """Whether this process has others run the tests."""
    asked = getattr(config.known_args_namespace, "numprocesses", None)  # there with pytest-xdist alone
    return bool(asked) and "PYTEST_XDIST_WORKER" not in os.environ


def _servers() -> Mapping[str, str]:
    from tests.servers import start_test_servers  # only where servers are wanted

    return start_test_servers()


def _settings_alone(config: pytest.Config) -> Mapping[str, str]:
    """What Django's settings must name; nobody listens there."""
    var = tempfile.TemporaryDirectory(prefix="tenantry-tests-")
    config.add_cleanup(var.cleanup)
    nowhere = {
        "DATABASE_URL": "postgres://nobody@localhost/nothing",
        "REDIS_URL": "redis://localhost",
        "SECRET_KEY": "-",
    }
    return {name: value for name, value in nowhere.items() if name not in os.environ} | {"TENANTRY_VAR": var.name}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; `--no-loadscope-reorder` keeps them there."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    """Where it comes by the longest of these beginnings that is its own."""
    fitting = [(len(start), place) for place, start in enumerate(FIRST) if item.nodeid.startswith(start)]
    return max(fitting)[1] if fitting else len(FIRST)
