"""What an operator types works: gunicorn, collectstatic, createsuperuser, and the deployment's scripts."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.files import ROOT

PROGRAMS = Path(sys.executable).parent
GUNICORN = "gunicorn tenantry.wsgi:application --workers=2 --threads=2 --worker-class=gthread --bind=127.0.0.1:{port}"
START_LIMIT_S = 60.0


@pytest.mark.parametrize("command", [GUNICORN, "deploy/run web"])
def test_a_web_server_starts_and_is_ready(django_db_setup: None, model_host: str, command: str) -> None:
    port = free_port()
    settings = {"PORT": str(port), "WEB_HOST": "127.0.0.1", "WEB_WORKERS": "1"}
    with running(command.format(port=port).split(), **settings) as process:
        await_true(lambda: process.poll() is not None or answers(port, "/healthz"))
        assert get(port, "/healthz") == (200, {"status": "alive"})
        await_true(lambda: answers(port, "/readyz"))
        assert get(port, "/readyz") == (200, {"status": "ready"})


def test_collectstatic_gathers_the_pages_files(tmp_path: Path) -> None:
    ended = run([sys.executable, "manage.py", "collectstatic", "--noinput"], STATIC_ROOT=str(tmp_path / "static"))
    assert ended.returncode == 0, ended.stderr
    names = json.loads((tmp_path / "static" / "staticfiles.json").read_text())["paths"]
    assert (tmp_path / "static" / names["admin/css/base.css"]).exists()


def test_createsuperuser_makes_an_operator(django_db_setup: None, django_db_blocker: Any) -> None:
    from tenants.models import User

    email = "created@operators.test"
    account = {"DJANGO_SUPERUSER_EMAIL": email, "DJANGO_SUPERUSER_PASSWORD": "a-long-and-unlikely-one"}
    ended = run([sys.executable, "manage.py", "createsuperuser", "--noinput"], **account)
    assert ended.returncode == 0, ended.stderr
    with django_db_blocker.unblock():
        made = User.objects.get(email=email)
        assert made.is_superuser
        assert made.check_password("a-long-and-unlikely-one")
        made.delete()


def test_run_refuses_a_process_that_is_not_in_the_procfile() -> None:
    ended = run(["deploy/run", "worker"])
    assert ended.returncode == 2
    assert "no process named 'worker'" in ended.stderr


def test_a_model_host_started_beside_a_command_has_none_of_its_secrets(tmp_path: Path) -> None:
    seen = tmp_path / "socket"
    command = ["deploy/with-model-host", "sh", "-c", f'echo "$TENANTRY_MODELS_SOCKET" > {seen}; exec sleep 60']
    with running(command, A_SECRET="of the worker") as process:
        await_true(lambda: seen.exists() and Path(seen.read_text().strip()).is_socket())
        host = next(pid for pid in children_of(process.pid) if "runtimes.host" in command_line(pid))
        assert b"A_SECRET" not in Path(f"/proc/{host}/environ").read_bytes()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        assert not Path(f"/proc/{host}").exists()
    assert not Path(seen.read_text().strip()).parent.exists()


def test_a_command_ends_when_its_model_host_does(tmp_path: Path) -> None:
    seen = tmp_path / "pid"
    with running(["deploy/with-model-host", "sh", "-c", f"echo $$ > {seen}; exec sleep 60"]) as process:
        await_true(lambda: seen.exists() and any("runtimes.host" in command_line(p) for p in children_of(process.pid)))
        host = next(pid for pid in children_of(process.pid) if "runtimes.host" in command_line(pid))
        os.kill(host, signal.SIGKILL)
        assert process.wait(30) != 0
        assert not Path(f"/proc/{seen.read_text().strip()}").exists()


def test_the_exit_status_is_the_commands() -> None:
    assert run(["deploy/with-model-host", "sh", "-c", "exit 7"]).returncode == 7


def run(command: list[str], **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=ROOT, env=environment(settings), capture_output=True, text=True, timeout=180, check=False
    )


@contextmanager
def running(command: list[str], **settings: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The command while the block runs; nothing of it is left after."""
    process = subprocess.Popen(command, cwd=ROOT, env=environment(settings), start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def environment(settings: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", **settings}


def get(port: int, path: str) -> tuple[int, Any]:
    """The status and the JSON that a path answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def answers(port: int, path: str) -> bool:
    try:
        return get(port, path)[0] == 200
    except OSError:
        return False


def children_of(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except FileNotFoundError:
        return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_true(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)
