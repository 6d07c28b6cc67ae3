"""The commands of the stack: `up`, `run` and `servers`."""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tenantry.stack.errors import BadStart, StackError
from tenantry.stack.guard import guarded
from tenantry.stack.process import Command, spawn
from tenantry.stack.servers import EmbeddedServers
from tenantry.stack.up import Plan, free_port, given_settings, run_stack


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 2 for what the caller can put right, 1 for what broke."""
    options = _parser().parse_args(arguments)
    try:
        if options.action == "servers":
            return _with_servers(options)
        plan = _plan(options)
    except StackError as error:
        return _fail(error)
    return guarded(partial(_run, plan))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tenantry.stack", description="Runs the whole platform on this machine."
    )
    actions = parser.add_subparsers(dest="action", required=True)
    up = actions.add_parser("up", help="run the stack in the foreground until Ctrl-C")
    run = actions.add_parser("run", help="start the stack, run a command against it, stop the stack")
    servers = actions.add_parser("servers", help="run a command beside PostgreSQL and Valkey alone")
    for action, port in ((up, "8000"), (run, "0")):
        action.add_argument(
            "--port", default=port, help="the port of the web server; 0 takes a free one (default: %(default)s)"
        )
        action.add_argument("--host", default="127.0.0.1", help="the address it listens on (default: %(default)s)")
        action.add_argument(
            "--var", type=Path, default=Path("var"), help="the folder of everything that is kept (default: var)"
        )
        action.add_argument(
            "--procfile", type=Path, default=Path("Procfile"), help="the processes to run (default: Procfile)"
        )
        action.add_argument("--no-set-up", action="store_true", help="neither migrate nor collect static files first")
    servers.add_argument("--var", type=Path, help="the data folder (default: a new one that is removed)")
    for action in (run, servers):
        action.add_argument("command", nargs="+", help="the command, after --")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    if not options.port.isdecimal() or int(options.port) > 65_535:
        raise BadStart(f"PORT must be a number from 0 to 65535, not {options.port!r}.")
    return Plan(
        root=options.procfile.absolute().parent,
        var=options.var,
        host=options.host,
        port=int(options.port) or _free_port(options.host),
        procfile=options.procfile,
        set_up=not options.no_set_up,
        command=tuple(getattr(options, "command", ())),
    )


def _free_port(host: str) -> int:
    try:
        return free_port(host)
    except OSError as error:
        raise BadStart(f"Nothing can listen on {host}: {error.strerror}.") from error


def _run(plan: Plan) -> int:
    try:
        return run_stack(plan)
    except StackError as error:
        return _fail(error)


def _with_servers(options: argparse.Namespace) -> int:
    """Run a command beside the embedded servers alone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave by way of the contexts below
    with tempfile.TemporaryDirectory(prefix="tenantry-") as empty:
        if os.geteuid() == 0:
            Path(empty).chmod(0o711)  # the servers' account passes through to its own folder
        given = given_settings(Path.cwd(), os.environ)
        with EmbeddedServers(options.var or Path(empty), given=given, durable=options.var is not None) as settings:
            return _call(options.command, settings)


def _call(argv: Sequence[str], settings: dict[str, str]) -> int:
    process = spawn(Command(tuple(argv), Path.cwd(), {**os.environ, **settings}), 1)
    try:
        return process.popen.wait()
    except KeyboardInterrupt:
        process.stop(10)
        return 130
    finally:
        process.kill_group()


def _fail(error: StackError) -> int:
    print(f"tenantry: {error}", file=sys.stderr)  # noqa: T201
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
