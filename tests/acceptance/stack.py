"""A whole platform for acceptance tests: the real processes, started and stopped as `make up` does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import requests

from clients.demo.platform import Operator, Tenant

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 300.0
STOP_LIMIT_S = 60.0
LONGEST_PREDICTION_S = 20.0
DISK_BYTES = 256 << 20  # of this machine's copies of models
# The test session's own servers; a stack has its own.
NOT_OURS = (
    "DATABASE_URL",
    "REDIS_URL",
    "BROKER_URL",
    "CLOUDAMQP_URL",
    "TENANTRY_VAR",
    "TENANTRY_MODELS_SOCKET",
    "PORT",
)


class Stack:
    """A running platform and its processes."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, var: Path) -> None:
        self.process = process
        self.url = url
        self.var = var
        self.log = var.parent / "stack.log"

    def operator(self) -> Operator:
        """The first operator, logged in."""
        operator = Operator(self.url, self.var / "operator.json")
        operator.log_in()
        return operator

    def tenant(self) -> Tenant:
        """A new tenant by its admin token."""
        tenant_id = f"t-{uuid.uuid4().hex[:10]}"
        return self.operator().tenant(tenant_id, tenant_id)[0]

    def processes(self, *words: str) -> list[psutil.Process]:
        """The stack's processes whose command line holds each of these words."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if all(word in _command(child) for word in words)]

    def kill(self, *words: str) -> None:
        """Kill -9 every process whose command line holds each of these words."""
        for process in self.processes(*words):
            process.send_signal(signal.SIGKILL)

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the platform's commands beside the running stack."""
        environment = clean_environment() | {"TENANTRY_VAR": str(self.var)}
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def clean_environment() -> dict[str, str]:
    """The environment less what names the test session's servers."""
    return {name: value for name, value in os.environ.items() if name not in NOT_OURS}


@contextmanager
def running_stack(folder: Path, **settings: str) -> Iterator[Stack]:
    """A platform over `folder`/var on a free port, ready; stopped at the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    var, log = folder / "var", folder / "stack.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tenantry.stack", "up", "--port", str(port), "--var", str(var)],
            cwd=ROOT,
            env=clean_environment() | settings,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    stack = Stack(process, f"http://127.0.0.1:{port}", var)
    try:
        eventually(lambda: _is_ready(stack), START_LIMIT_S, f"the stack is ready; its log: {log}")
        yield stack
    finally:
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        finally:
            process.kill()


def eventually(holds: Callable[[], Any], within_s: float, what: str) -> Any:
    """What `holds` returns once it is true.

    Raises:
        AssertionError: it did not become so in time.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {within_s} s: {what}")


def _is_ready(stack: Stack) -> bool:
    if stack.process.poll() is not None:
        raise AssertionError(f"the stack ended: {stack.log.read_text()[-3000:]}")
    try:
        return requests.get(f"{stack.url}/readyz", timeout=5).ok and bool(
            json.loads((stack.var / "operator.json").read_text())
        )
    except (requests.RequestException, OSError):
        return False


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
