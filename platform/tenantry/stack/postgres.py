"""The embedded PostgreSQL: a cluster in VAR, reached through a Unix socket with a password."""

import shutil
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg2
from psycopg2 import sql

from tenantry.stack.errors import StackError
from tenantry.stack.folder import DataFolder
from tenantry.stack.process import Command
from tenantry.stack.programs import Programs

MAJOR = "18"
PORT = "5432"  # a part of the socket's name; nothing listens on TCP
DATABASE = OWNER = "tenantry"
LEFTOVERS_WAIT_S = 15.0
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}  # none of our secrets are for the server

SETTINGS = {
    "listen_addresses": "",
    "port": PORT,
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "max_locks_per_transaction": "1024",  # dropping a tenant's schema locks each of its tables
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "",
}
# For tests, whose data nobody misses after a power cut.
FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum_naptime": "10min"}


class Postgres:
    """One PostgreSQL server over VAR's cluster. A second start finds what the first one stored."""

    name = "postgres"

    def __init__(self, folder: DataFolder, programs: Programs, *, durable: bool = True) -> None:
        self._folder = folder
        self._programs = programs
        self._durable = durable
        self._data = folder.servers / "postgres"

    def prepare(self) -> None:
        """Have a cluster that no process uses. Raises StackError."""
        kept = self._data / "PG_VERSION"
        if not kept.exists():
            self._initialise()
        elif kept.read_text().strip() != MAJOR:
            raise StackError(f"{self._data} was written by PostgreSQL {kept.read_text().strip()}, and this is {MAJOR}.")
        self._await_leftovers()
        # PostgreSQL takes any living process with the number in this file for a server, so after a
        # crash or in a new container it would refuse to start.
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def command(self) -> Command:
        """How to run the server in the foreground."""
        settings = SETTINGS | ({} if self._durable else FORGETFUL)
        settings["unix_socket_directories"] = str(self._folder.server_sockets)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Command(
            argv=(str(self._programs.postgres_folder / "postgres"), "-D", str(self._data), *options),
            cwd=self._data,
            environment=ENVIRONMENT,
            account=self._folder.account,
            stop_signal=signal.SIGINT,  # ends sessions, then the server
            death_signal=signal.SIGQUIT,  # ends at once and takes its children along; the next start recovers
        )

    def is_ready(self) -> bool:
        """Whether the database takes queries; makes the database and its owner on the first start."""
        if not self._says_ready():  # asking by a connection would fill the log with refusals
            return False
        try:
            with closing(self._connect("postgres")) as connection:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    self._ensure_database(cursor)
        except psycopg2.OperationalError:
            return False
        return True

    def environment(self) -> dict[str, str]:
        """What the platform's settings need to reach it."""
        address = quote(str(self._folder.server_sockets), safe="")
        return {"DATABASE_URL": f"postgres://{OWNER}:{self._folder.secret(OWNER)}@:{PORT}/{DATABASE}?host={address}"}

    def _says_ready(self) -> bool:
        """Whether the server has noted, in the last line of its pid file, that it takes connections."""
        try:
            return (self._data / "postmaster.pid").read_text().rstrip().endswith("\nready")
        except OSError:
            return False

    def _initialise(self) -> None:
        """Make the cluster, whole or not at all."""
        fresh = self._folder.servers / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        password = self._folder.servers / "password.new"
        password.unlink(missing_ok=True)
        password.touch(mode=0o600)
        password.write_text(self._folder.secret("postgres"))
        self._folder.account.own(password)
        try:
            self._initdb(fresh, password)
        finally:
            password.unlink()
        fresh.rename(self._data)

    def _initdb(self, data: Path, password: Path) -> None:
        command = [str(self._programs.postgres_folder / "initdb"), "--pgdata", str(data), "--pwfile", str(password)]
        command += ["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        # The builtin provider sorts the same on every machine, whatever its C library.
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command += [] if self._durable else ["--no-sync"]
        account = self._folder.account
        done = subprocess.run(
            command, **account.identity, cwd="/", env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise StackError(f"PostgreSQL's initdb failed in {data}: {done.stderr.strip() or done.stdout.strip()}")

    def _await_leftovers(self) -> None:
        """Wait for the processes of a server that was killed: they end by themselves once they notice."""
        deadline = time.monotonic() + LEFTOVERS_WAIT_S
        while users := processes_in(self._data):
            if time.monotonic() > deadline:
                raise StackError(f"Another PostgreSQL (process {users[0]}) still uses {self._data}: stop it first.")
            time.sleep(0.05)

    def _connect(self, database: str) -> "psycopg2.extensions.connection":
        return psycopg2.connect(
            host=str(self._folder.server_sockets),
            port=PORT,
            user="postgres",
            password=self._folder.secret("postgres"),
            dbname=database,
            connect_timeout=5,
        )

    def _ensure_database(self, cursor: "psycopg2.extensions.cursor") -> None:
        """Have the platform's role, no superuser, and its database."""
        role, database = sql.Identifier(OWNER), sql.Identifier(DATABASE)
        cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [OWNER])
        if not cursor.rowcount:
            password = sql.Literal(self._folder.secret(OWNER))
            cursor.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(role, password))
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
        if not cursor.rowcount:
            cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0").format(database, role))
            cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))


def processes_in(folder: Path) -> list[int]:
    """The processes whose working directory this is, which is so for all of a PostgreSQL server's."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and (entry / "cwd").readlink() == folder:
                found.append(int(entry.name))
        except OSError:  # it has ended, or belongs to somebody else
            continue
    return found
