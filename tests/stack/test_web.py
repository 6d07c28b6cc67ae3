"""granian, as the Procfile starts it, over the session's servers."""

import subprocess
import sys
from pathlib import Path

import psutil
import requests

from tenantry.stack.up import free_port
from tests.stack.conftest import wait_for

ROOT = Path(__file__).resolve().parents[2]


def answers(url: str) -> bool:
    """Whether anything answers; the session's own database has no tables, so it may be an error."""
    try:
        requests.get(url, timeout=5)
    except requests.RequestException:
        return False
    return True


def test_a_killed_granian_takes_its_workers_along() -> None:
    port = str(free_port("127.0.0.1"))
    command = [sys.executable, "-m", "granian", "--interface", "wsgi", "tenantry.wsgi:application", "--port", port]
    granian = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/healthz"))
        workers = psutil.Process(granian.pid).children(recursive=True)
        assert workers
    finally:
        granian.kill()
        granian.wait()
    wait_for(lambda: not any(worker.is_running() for worker in workers))
