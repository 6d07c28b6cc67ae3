"""Data folders and stacks of dummy processes, which need no Django."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tenantry.stack.up import free_port

DEADLINE_S = 60  # generous: a loaded machine is no failure
# Servers that nobody asks anything: with them given, a stack starts none of its own.
NO_SERVERS = {"DATABASE_URL": "postgres://nobody@localhost/nothing", "REDIS_URL": "redis://localhost/0"}
WEB = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until the condition holds, or fail."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def outside_environment(**changes: str) -> dict[str, str]:
    """This process's environment without what the session's own servers have added."""
    ours = ("DATABASE_URL", "REDIS_URL", "BROKER_URL", "TENANTRY_VAR", "TENANTRY_MODELS_SOCKET")
    return {name: value for name, value in os.environ.items() if name not in ours} | changes


def processes_of(var: Path) -> list[psutil.Process]:
    """Every process of the stack over this data folder, however it got there."""
    return [process for process in psutil.process_iter() if _belongs(process, str(var))]


def _belongs(process: psutil.Process, var: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        is_told = any(var in word for word in process.cmdline()) or process.environ().get("TENANTRY_VAR") == var
        return is_told or process.cwd().startswith(var)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


@pytest.fixture
def var() -> Iterator[Path]:
    """A path for a data folder that the servers' account can reach, as it could in a normal checkout."""
    with new_var() as path:
        yield path


@contextmanager
def new_var() -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="tenantry-var-"))
    parent.chmod(0o755)
    yield parent / "var"
    for record in parent.glob("*/sockets.location"):  # of a stack that a test has killed
        shutil.rmtree(record.read_text().strip(), ignore_errors=True)
    shutil.rmtree(parent)


@dataclass
class Stack:
    """A stack in a process of its own, over a Procfile of dummies."""

    root: Path
    var: Path
    port: int = field(default_factory=lambda: free_port("127.0.0.1"))
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, processes: Mapping[str, str], *options: str, action: str = "up", **environment: str) -> None:
        """Run `up` or `run` over a Procfile of these processes."""
        procfile = self.root / "Procfile"
        procfile.write_text("".join(f"{name}: {line}\n" for name, line in processes.items()))
        shared = ("--port", str(self.port), "--var", str(self.var), "--procfile", str(procfile))
        self.start_action(action, *shared, *options, **environment)

    def start_action(self, *arguments: str, **environment: str) -> None:
        """Run the stack's program with these arguments."""
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tenantry.stack", *arguments],
                stdout=output,
                stderr=output,
                env=outside_environment(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment),
                cwd=self.root,
            )

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def log(self) -> str:
        return self.output.read_text()

    def await_line(self, text: str) -> None:
        wait_for(lambda: text in self.log or self.ended)
        assert text in self.log

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def end(self) -> int:
        """Wait for its end and return the exit status."""
        assert self.process is not None
        return self.process.wait(DEADLINE_S)


@pytest.fixture
def stack(tmp_path: Path, var: Path) -> Iterator[Stack]:
    """A stack to start; the dummy `python web.py` answers every request."""
    tmp_path.joinpath("web.py").write_text(WEB)
    running = Stack(tmp_path, var)
    yield running
    for process in processes_of(var):
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            process.kill()
    wait_for(lambda: not processes_of(var))
