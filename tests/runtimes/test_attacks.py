"""Hostile artifacts. Each test looks from the outside: nothing changed, nobody was reached, the others still answer."""

from __future__ import annotations

from typing import Any

import pytest

from runtimes.client import HostClient
from runtimes.errors import ArtifactRejected
from tests.runtimes import attacks
from tests.runtimes.payloads import SUCCEEDED, running
from tests.runtimes.world import World, rejected


def attack(client: HostClient, world: World, code: str) -> ArtifactRejected:
    """The rejection in which an artifact with this code ends."""
    return rejected(client, world, running(code.format(**world.targets(client))))


FORBIDDEN = attacks.FILES | attacks.SOCKETS | attacks.PROCESSES | attacks.KERNEL


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_forbidden_deed_does_not_happen(any_client: HostClient, world: World, neighbour: Any, name: str) -> None:
    rejection = attack(any_client, world, FORBIDDEN[name])

    world.assert_untouched()
    assert SUCCEEDED not in rejection.reason


@pytest.mark.parametrize("name", attacks.EXHAUSTION)
def test_an_artifact_that_takes_too_much_harms_itself_alone(
    any_client: HostClient, world: World, neighbour: Any, name: str
) -> None:
    rejection = attack(any_client, world, attacks.EXHAUSTION[name])

    world.assert_untouched()
    assert SUCCEEDED not in rejection.reason


def test_a_killing_call_is_told_to_the_uploader(client: HostClient, world: World) -> None:
    rejection = attack(client, world, attacks.PROCESSES["exec"])

    assert rejection.code == "confinement_violation"
    assert rejection.reason == "The artifact tried a forbidden system call (SIGSYS)."


def test_a_forbidden_file_is_told_to_the_uploader(client: HostClient, world: World) -> None:
    rejection = attack(client, world, attacks.FILES["read the password file"])

    assert rejection.code == "confinement_violation"
    assert "PermissionError" in rejection.reason


def test_nothing_of_the_project_is_importable(client: HostClient, world: World) -> None:
    rejection = attack(client, world, "import tenants")

    assert rejection.code == "unreadable_artifact" or rejection.code == "missing_module"
    assert "tenants" in rejection.reason


def test_the_environment_holds_nothing_of_the_host(client: HostClient, world: World) -> None:
    rejection = attack(client, world, "result = sorted(set(os.environ) & {{'HOME', 'PWD', 'USER', 'PYTEST_VERSION'}})")

    assert rejection.reason.endswith(f"{SUCCEEDED}: ['HOME']).")  # of which the zygote says /nonexistent
