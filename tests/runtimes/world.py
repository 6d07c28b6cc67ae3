"""What attacks aim at, and the proof from outside that none arrived."""

from __future__ import annotations

import os
import secrets
import select
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runtimes.client import HostClient
from runtimes.errors import ArtifactRejected
from runtimes.limits import MIB, Limits
from tests.runtimes import hosts
from tests.runtimes.conftest import bundle_of

LIMITS = Limits(memory_bytes=256 * MIB, load_seconds=10.0, cpu_seconds=10)


class World:
    """Files, sockets and a process that hostile code is told of."""

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
        self.victim = subprocess.Popen(["sleep", "3600"])
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
        assert hosts.state_of(self.victim.pid) == "S"
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
            os.sched_getscheduler(pid),
            os.getpgid(pid),
            Path(f"/proc/{pid}/limits").read_text(),
            Path(f"/proc/{pid}/oom_score_adj").read_text(),
            str(self.folder) in Path("/proc/self/mountinfo").read_text(),
            socket.gethostname(),
        )


def rejected(client: HostClient, world: World, files: Mapping[str, bytes] | bytes, **metadata: Any) -> ArtifactRejected:
    """The rejection in which the inspection of hostile files ends; its bundle is as it was."""
    fd = bundle_of(files)
    before = os.pread(fd, 1 << 20, 0), _kept(os.fstat(fd))
    limits = metadata.pop("limits", LIMITS)
    try:
        with pytest.raises(ArtifactRejected) as rejection:
            client.inspect(fd, tenant="acme", metadata=metadata, limits=limits)
        assert (os.pread(fd, 1 << 20, 0), _kept(os.fstat(fd))) == before
    finally:
        os.close(fd)
    assert world.secret_text not in rejection.value.reason
    assert rejection.value.reason.endswith(".")
    return rejection.value


def _kept(status: os.stat_result) -> tuple[object, ...]:
    return status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns, status.st_nlink
