"""Hostile artifacts. Each test looks from the outside: nothing changed, nobody was reached, the others still answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from runtimes.client import HostClient
from runtimes.errors import ArtifactRejected, DeadlineExceeded, RunnerDied
from runtimes.limits import MIB, Limits
from tests.runtimes import attacks, hosts
from tests.runtimes.conftest import Load
from tests.runtimes.payloads import SUCCEEDED, running
from tests.runtimes.world import World, rejected


def attack(client: HostClient, world: World, code: str) -> ArtifactRejected:
    """The rejection in which an artifact with this code ends."""
    return rejected(client, world, running(code.format(**world.targets(client))))


IMPATIENT = Limits(memory_bytes=256 * MIB, load_seconds=0.4, call_seconds=0.4, cpu_seconds=5)
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


@pytest.mark.parametrize("name", attacks.SILENCE)
def test_an_artifact_that_never_answers_is_ended(
    any_client: HostClient, world: World, neighbour: Any, name: str
) -> None:
    code = attacks.SILENCE[name].format(**world.targets(any_client))
    rejection = rejected(any_client, world, running(code), limits=IMPATIENT)

    world.assert_untouched()
    assert rejection.code in ("load_timeout", "load_memory")


@pytest.mark.parametrize("name", attacks.SILENCE)
def test_a_version_that_never_answers_while_it_is_loaded_is_ended(
    client: HostClient, world: World, load_request: Load, name: str
) -> None:
    code = attacks.SILENCE[name].format(**world.targets(client))
    key = f"silent: {name}"

    def ask() -> None:
        """Load it, and ask it where the host believed that it was loaded."""
        client.runner(key, load_request(running(code), limits=IMPATIENT)).predict(np.zeros((1, 4)), deadline_s=1.0)

    with pytest.raises((ArtifactRejected, DeadlineExceeded, RunnerDied)):
        ask()

    assert hosts.eventually(lambda: not client.resident(key))


def test_a_changed_runner_changes_no_other_of_its_zygote(
    client: HostClient, world: World, classifier: LogisticRegression, load_request: Load
) -> None:
    """Everything that it inherited is its own copy: modules, machine code, random numbers."""
    code = """
import builtins, gc, json, random
import numpy, msgpack, runtimes.arrays, runtimes.replies
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
for function in (libc.read, libc.write, libc.malloc):
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert libc.mprotect(address & ~4095, 8192, 7) == 0
numpy.dot = numpy.exp = numpy.argmax = lambda *given, **named: 7
runtimes.replies.encode_prediction = runtimes.arrays.encode = None
random.seed(0); numpy.random.seed(0); gc.unfreeze(); gc.collect()
builtins.len = lambda value: 0
result = 'it changed all'
ctypes.memset(ctypes.cast(libc.malloc, ctypes.c_void_p).value, 0xCC, 16)
"""
    assert attack(client, world, code.replace("{", "{{").replace("}", "}}")).code == "load_crashed"

    runner = client.runner("after the change", load_request(classifier))
    rows = np.repeat(np.arange(3), 2)[:, None] * np.full((1, 4), 3.0)
    assert runner.predict(rows, deadline_s=10).outputs["prediction"].tolist() == classifier.predict(rows).tolist()


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
