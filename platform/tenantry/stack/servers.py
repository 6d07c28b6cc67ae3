"""The embedded servers a stack needs: those that the environment names no other server for."""

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol

from tenantry.stack.errors import StackError
from tenantry.stack.folder import DataFolder
from tenantry.stack.postgres import Postgres
from tenantry.stack.process import Command, Process, spawn
from tenantry.stack.programs import programs_for
from tenantry.stack.valkey import Valkey

START_LIMIT_S = 120.0  # recovery after a crash takes its time
STOP_GRACE_S = 15.0


class Server(Protocol):
    """What it takes to run one server."""

    @property
    def name(self) -> str: ...
    def prepare(self) -> None: ...
    def command(self) -> Command: ...
    def is_ready(self) -> bool: ...
    def environment(self) -> dict[str, str]: ...


def needed_servers(folder: DataFolder, given: Mapping[str, str], *, durable: bool = True) -> list[Server]:
    """A PostgreSQL unless DATABASE_URL is given, a Valkey unless REDIS_URL is."""
    kinds = [kind for kind, name in ((Postgres, "DATABASE_URL"), (Valkey, "REDIS_URL")) if not given.get(name)]
    if not kinds:
        return []
    programs = programs_for(folder.account, folder.servers)
    return [kind(folder, programs, durable=durable) for kind in kinds]


def stack_environment(folder: DataFolder, servers: list[Server], given: Mapping[str, str]) -> dict[str, str]:
    """The settings that a running stack adds to those given: the addresses of its own parts."""
    addresses = {
        "TENANTRY_VAR": str(folder.path),
        "TENANTRY_MODELS_SOCKET": str(folder.model_sockets / "models.sock"),
    }
    for server in servers:
        addresses |= server.environment()
    if given.get("CLOUDAMQP_URL"):
        addresses.pop("BROKER_URL", None)
    return {name: value for name, value in addresses.items() if not given.get(name) or name == "TENANTRY_VAR"}


class EmbeddedServers:
    """PostgreSQL and Valkey over VAR, for as long as the context lasts; entering gives the settings to reach them.

    given: settings that name servers; whatever DATABASE_URL or REDIS_URL names is used instead.
    durable: False for tests, which lose data if the machine (not the server) crashes.

    Enter it from the main thread: the servers die with the thread that starts them.
    """

    def __init__(self, var: Path, *, given: Mapping[str, str] | None = None, durable: bool = True) -> None:
        self._var = var
        self._given = given or {}
        self._durable = durable
        self._exits = ExitStack()

    def __enter__(self) -> dict[str, str]:
        with self._exits:
            folder = self._exits.enter_context(DataFolder(self._var))
            servers = needed_servers(folder, self._given, durable=self._durable)
            processes = [self._start(folder, server) for server in servers]
            for server, process in zip(servers, processes, strict=True):
                _await_ready(folder, server, process)
            environment = stack_environment(folder, servers, self._given)
            folder.ensure_secret_key()
            folder.write_environment(environment)
            self._exits = self._exits.pop_all()
        return environment

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    def _start(self, folder: DataFolder, server: Server) -> Process:
        server.prepare()
        log = os.open(log_file(folder, server), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = spawn(server.command(), log)
        finally:
            os.close(log)
        self._exits.callback(process.stop, STOP_GRACE_S)
        return process


def log_file(folder: DataFolder, server: Server) -> Path:
    return folder.file(f"{server.name}.log")


def _await_ready(folder: DataFolder, server: Server, process: Process) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while not server.is_ready():
        if process.has_ended or time.monotonic() > deadline:
            tail = "\n".join(log_file(folder, server).read_text(errors="replace").splitlines()[-10:])
            raise StackError(f"The embedded {server.name} does not start; its log ends with:\n{tail}")
        time.sleep(0.02)
