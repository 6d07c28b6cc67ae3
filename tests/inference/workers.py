"""Real workers and a real RabbitMQ for tests, as processes that end with their block."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # Debian's; the one in the PATH wants to be root
START_S = 90.0


def why_no_rabbitmq() -> str:
    """Why no RabbitMQ can be started here; empty if one can."""
    if not RABBITMQ.exists():
        return "rabbitmq-server is not installed (apt-get install rabbitmq-server)"
    return "" if shutil.which("epmd") else "Erlang's epmd is not in the PATH"


@contextmanager
def running_rabbitmq(folder: Path) -> Iterator[str]:
    """The address of a RabbitMQ of its own, on free ports, with everything it keeps in `folder`; gone afterwards."""
    port, distribution, names = free_ports(3)
    (folder / "plugins").write_text("[].\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": "tests@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "none"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    server = subprocess.Popen(
        [RABBITMQ], env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: _listens(port), "RabbitMQ listens")
        yield f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:
        server.terminate()
        server.wait(30)
        subprocess.run(["epmd", "-port", str(names), "-kill"], env=environment, capture_output=True, check=False)


@contextmanager
def running_worker(queues: str, **settings: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A Celery worker with a thread pool that consumes these queues, ready; killed at the end of the block."""
    name = f"{queues.replace(',', '-')}-{os.getpid()}-{time.monotonic_ns()}@tests"
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "tenantry", "worker", "--queues", queues]
    command += ["--pool", "threads", "--concurrency", "4", "--hostname", name]
    worker = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, start_new_session=True)
    try:
        yield worker
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def until(holds: Callable[[], Any], what: str, within_s: float = START_S) -> Any:
    """What `holds` returns once it is true."""
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)
    return found


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
