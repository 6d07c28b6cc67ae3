"""Hostile artifacts. Each test looks from the outside: nothing changed, nobody was reached, the others still answer."""

from __future__ import annotations

import os
import secrets
import select
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.client import HostClient
from runtimes.errors import ArtifactRejected
from runtimes.limits import MIB, Limits
from tests.runtimes import attacks, hosts
from tests.runtimes.conftest import Load, bundle_of
from tests.runtimes.payloads import SUCCEEDED, running

LIMITS = Limits(memory_bytes=256 * MIB, load_seconds=10.0, cpu_seconds=10)


class World:
    """What attacks aim at, and the proof that none arrived."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o755)
        self.secret_text = secrets.token_hex()
        self.open_folder = folder / "open"
        self.open_folder.mkdir()
        self.open_folder.chmod(0o777)
        self.secret, self.canary = folder / "secret", self.open_folder / "canary"
        for path in (self.secret, self.canary):
            path.write_text(self.secret_text)
        self.canary.chmod(0o666)
        self.listeners = self._listen()
        self.victim = subprocess.Popen(["sleep", "600"])
        self.state = self._state()

    def targets(self, client: HostClient) -> dict[str, Any]:
        return {
            "secret": self.secret,
            "canary": self.canary,
            "open_folder": self.open_folder,
            "host_folder": client._path.parent,
            "host_socket": client._path,
            "project": hosts.ROOT,
            "unix_stream": self.open_folder / "stream",
            "unix_datagram": self.open_folder / "datagram",
            "abstract": self.abstract,
            "tcp_port": self.listeners[3].getsockname()[1],
            "udp_port": self.listeners[4].getsockname()[1],
            "victim": self.victim.pid,
        }

    def assert_untouched(self) -> None:
        assert self._state() == self.state
        assert self.victim.poll() is None
        reached, _, _ = select.select(self.listeners, [], [], 0)
        assert not reached
        assert not Path("/dev/shm/tenantry-attack").exists()

    def close(self) -> None:
        self.victim.kill()
        self.victim.wait()
        for listener in self.listeners:
            listener.close()

    def _listen(self) -> list[socket.socket]:
        self.abstract = f"tenantry-{secrets.token_hex(4)}"
        stream, datagram = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        abstract, tcp, udp = socket.socket(socket.AF_UNIX), socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        stream.bind(str(self.open_folder / "stream"))
        datagram.bind(str(self.open_folder / "datagram"))
        abstract.bind(f"\0{self.abstract}")
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        for name in ("stream", "datagram"):
            (self.open_folder / name).chmod(0o777)
        for listener in (stream, abstract, tcp):
            listener.listen()
        return [stream, datagram, abstract, tcp, udp]

    def _state(self) -> tuple[Any, ...]:
        canary = self.canary.stat()
        pid = self.victim.pid
        return (
            sorted(self.open_folder.iterdir()),
            self.canary.read_text(),
            (canary.st_mode, canary.st_uid, canary.st_mtime_ns, canary.st_nlink),
            os.sched_getaffinity(pid),
            os.getpriority(os.PRIO_PROCESS, pid),
            Path(f"/proc/{pid}/limits").read_text(),
            socket.gethostname(),
        )


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="tnt") as name:
        world = World(Path(name))
        yield world
        world.close()


@pytest.fixture
def neighbour(any_client: HostClient, classifier: Any, load_request: Load) -> Any:
    """Another tenant's model; whatever happens beside it, it answers."""
    runner = any_client.runner("neighbour", load_request(classifier, tenant="globex"))
    yield runner
    prediction = runner.predict(np.zeros((1, 4)), deadline_s=10)
    assert prediction.outputs["prediction"].tolist() == [0]


def attack(client: HostClient, world: World, code: str) -> ArtifactRejected:
    """The rejection in which an artifact with this code ends."""
    artifact = running(code.format(**world.targets(client)))
    fd = bundle_of(artifact)
    before = os.pread(fd, 1 << 20, 0)
    try:
        with pytest.raises(ArtifactRejected) as rejection:
            client.inspect(fd, tenant="acme", metadata={}, limits=LIMITS)
        assert os.pread(fd, 1 << 20, 0) == before
    finally:
        os.close(fd)
    assert world.secret_text not in rejection.value.reason
    assert rejection.value.reason.endswith(".")
    return rejection.value


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
