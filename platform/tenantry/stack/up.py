"""One stack from its start to its end: servers, set-up, processes, and how to reach it."""

import hashlib
import http.client
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tenantry.stack.errors import BadStart, StackError
from tenantry.stack.folder import DataFolder
from tenantry.stack.log import Log
from tenantry.stack.process import Command
from tenantry.stack.procfile import read_procfile
from tenantry.stack.servers import START_LIMIT_S, Server, needed_servers, stack_environment
from tenantry.stack.supervisor import Child, Stage, StopRequested, Supervisor

READY_LIMIT_S = 180.0
UPGRADE, COLLECT = "upgrade", "collectstatic --noinput --verbosity 0"
ENSURE_OPERATOR = "ensure_operator --verbosity 0"  # quiet, since `up` says itself how to log in
COUNTS = (
    "WEB_WORKERS",
    "WEB_THREADS",
    "INFERENCE_THREADS",
    "INFERENCE_QUEUES",
    "BATCH_THREADS",
    "TRAINING_PROCESSES",
    "DEFAULT_PROCESSES",
    "MODEL_MEMORY_BYTES",
)


@dataclass(frozen=True)
class Plan:
    """What to run and where.

    port: 0 takes a free one.
    set_up: whether to migrate, collect static files and have an operator first.
    command: run once the stack is ready, after which the stack stops; empty means to run until a signal.
    """

    root: Path
    var: Path
    host: str
    port: int
    procfile: Path
    set_up: bool = True
    command: tuple[str, ...] = ()

    @property
    def address(self) -> tuple[str, int]:
        """Where this machine reaches the web processes."""
        return ("127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host, self.port)  # noqa: S104 compared only

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.address)


def run_stack(plan: Plan) -> int:
    """Run the stack until a signal, or until `plan.command` ends, whose exit status it returns.

    Raises StackError.
    """
    os.umask(0o077)  # what the platform keeps in VAR is for its own user
    given = given_settings(plan.root, os.environ)
    _check_counts(given)
    commands = read_procfile(plan.procfile)
    _check_port(plan)
    with DataFolder(plan.var) as folder, _open_log(plan, folder) as log, Supervisor(log) as supervisor:
        try:
            return Run(plan, folder, supervisor, log, given).through(commands)
        except StopRequested:
            log.line("stack", "stopping")
            return 130 if plan.command else 0
        except StackError:
            if plan.command:
                print(*log.tail, sep="\n", file=sys.stderr)  # noqa: T201
            raise


@contextmanager
def _open_log(plan: Plan, folder: DataFolder) -> Iterator[Log]:
    """The terminal; but a command has that for itself, and the stack's own lines go to VAR/stack.log."""
    if not plan.command:
        yield Log(colours=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
        return
    folder.write("stack.log", "")
    with folder.file("stack.log").open("a") as file:
        yield Log(file)


@dataclass
class Run:
    """One run of a stack, step by step."""

    plan: Plan
    folder: DataFolder
    supervisor: Supervisor
    log: Log
    given: Mapping[str, str]

    def through(self, commands: Mapping[str, str]) -> int:
        """Start everything, then wait for the end."""
        environment = self._start_servers()
        operator = self.folder.file("operator.json")
        is_new = not operator.exists()
        if self.plan.set_up:
            self._prepare_web(environment)
        for name, line in commands.items():
            self.supervisor.start(Child(name, partial(self._shell, line, environment), stage_of(name)))
        if self.plan.set_up:
            self._manage(environment, ENSURE_OPERATOR)  # while the processes start
        is_ready = self.supervisor.wait(partial(answers, self.plan.address), limit_s=READY_LIMIT_S, pause_s=0.2)
        if self.plan.command:
            return self._run_command(environment, is_ready)
        self._greet(is_ready, operator, show_password=is_new)
        self.supervisor.run_forever()
        return 0

    def _start_servers(self) -> dict[str, str]:
        """Start the embedded servers and return the environment of everything that leans on them."""
        servers = needed_servers(self.folder, self.given)
        children = [Child(server.name, partial(prepared, server), Stage.SERVERS) for server in servers]
        for child in children:
            self.supervisor.start(child)

        def is_decided() -> bool:
            return any(child.failures > 1 for child in children) or all(server.is_ready() for server in servers)

        if not self.supervisor.wait(is_decided, limit_s=START_LIMIT_S, pause_s=0.02) or any(
            child.failures > 1 for child in children
        ):
            raise StackError("The embedded servers do not start; the last lines of the log are above.")
        settings = stack_environment(self.folder, servers, self.given)
        self.folder.ensure_secret_key()
        self.folder.write_environment(settings)
        own = {
            "PORT": str(self.plan.port),
            "WEB_HOST": self.plan.host,
            "TENANTRY_URL": self.plan.url,
            "PYTHONUNBUFFERED": "1",
        }
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {**self.given, **os.environ, **settings, **own, "PATH": programs}

    def _prepare_web(self, environment: Mapping[str, str]) -> None:
        """Do what must be done before a process of the platform starts."""
        kept, current = (
            self.folder.file("static.collected"),
            static_fingerprint(self.plan.root, self.folder.path, self.given),
        )
        # Collecting takes seconds of processor time even where nothing has changed.
        if kept.exists() and kept.read_text() == current and self.folder.file("static").is_dir():
            self._manage(environment, UPGRADE)
        else:
            self._manage(environment, UPGRADE, COLLECT)
            self.folder.write("static.collected", current)

    def _manage(self, environment: Mapping[str, str], *steps: str) -> None:
        """Run commands of manage.py side by side."""
        argvs = [(sys.executable, "manage.py", *step.split()) for step in steps]
        statuses = self.supervisor.run("set-up", *(Command(argv, self.plan.root, environment) for argv in argvs))
        for step, status in zip(steps, statuses, strict=True):
            if status:
                raise StackError(f"Setting up failed at `manage.py {step}`; the last lines of the log say why.")

    def _shell(self, line: str, environment: Mapping[str, str]) -> Command:
        """One line of the Procfile: the shell expands its variables, then makes room for the program."""
        return Command(("/bin/sh", "-c", f"exec {line}"), self.plan.root, environment)

    def _run_command(self, environment: Mapping[str, str], is_ready: bool) -> int:
        if not is_ready:
            raise StackError(
                f"The stack does not answer at {self.plan.url}/readyz; the last lines of its log are above."
            )
        (status,) = self.supervisor.run("command", Command(self.plan.command, self.plan.root, environment), output=1)
        return status if status >= 0 else 128 - status

    def _greet(self, is_ready: bool, operator: Path, *, show_password: bool) -> None:
        """Say where the stack is and how to get in; the password itself only on the first start."""
        if not is_ready:
            self.log.line("stack", f"{self.plan.url}/readyz does not answer yet; the lines above may say why")
            return
        self.log.line("stack", f"ready: {self.plan.url}/ and, for the operator, {self.plan.url}/admin/")
        if operator.exists():
            account = json.loads(operator.read_text())
            told = f"password {account['password']}, shown this once and kept" if show_password else "password"
            self.log.line("stack", f"log in as {account['email']}, {told} in {operator}")
        self.log.line("stack", "Ctrl-C stops everything")


def prepared(server: Server) -> Command:
    """The server's command, after what must be done before each start."""
    server.prepare()
    return server.command()


def stage_of(name: str) -> Stage:
    """When a process of the Procfile is stopped, by its name."""
    if name.startswith("web"):
        return Stage.WEB
    return Stage.MODEL_HOST if name == "model-host" else Stage.WORKERS


def answers(address: tuple[str, int]) -> bool:
    """Whether the web processes say that they are ready."""
    connection = http.client.HTTPConnection(*address, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def given_settings(root: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that somebody gave: those of `.env`, under those of the environment."""
    return _read_env_file(root / ".env") | dict(environment)


def _read_env_file(path: Path) -> dict[str, str]:
    """The settings in a file of `NAME=value` lines, as Django's side reads them too."""
    settings = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        name, equals, value = line.removeprefix("export ").partition("=")
        if equals and not line.lstrip().startswith("#"):
            settings[name.strip()] = value.strip().strip("'\"")
    return settings


def static_fingerprint(root: Path, var: Path, given: Mapping[str, str]) -> str:
    """A hash of what decides about the collected static files: the libraries, the settings, and files outside VAR."""
    digest = hashlib.sha256()
    about_static = {name: value for name, value in given.items() if name.startswith(("STATIC", "AWS_"))}
    digest.update(repr(sorted(about_static.items())).encode())
    for file in (root / "requirements.txt", root / "platform/tenantry/settings.py"):
        digest.update(file.read_bytes() if file.exists() else b"")
    files = {*root.glob("static/**/*"), *root.glob("*/static/**/*")}
    for file in sorted(file for file in files if not file.is_relative_to(var)):
        status = file.stat()
        digest.update(f"{file.relative_to(root)} {status.st_size} {status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def free_port(host: str) -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _check_port(plan: Plan) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((plan.host, plan.port))
        except OSError as error:
            raise BadStart(
                f"Port {plan.port} on {plan.host} cannot be used ({error.strerror}): choose another one with PORT=..."
            ) from error


def _check_counts(given: Mapping[str, str]) -> None:
    for name in COUNTS:
        value = given.get(name) or "1"
        if not value.isdecimal() or int(value) < 1:
            raise BadStart(f"{name} must be a whole number above zero, not {value!r}.")
