"""The supervisor over dummy processes: what it starts again, how it stops, and what a kill -9 leaves."""

import json
import os
import signal
import socket
import textwrap
from pathlib import Path

import psutil
import pytest

from tests.stack.conftest import NO_SERVERS, Stack, processes_of, wait_for

WEB = {"web": "python web.py"}
SLEEPER = "sleep 600"
PARENT = "sh -c 'sleep 600 & sleep 601 & wait'"
STUBBORN = """sh -c "trap '' TERM; echo stubborn; while true; do sleep 0.1; done" """


def test_a_process_that_dies_is_started_again_while_the_rest_runs_on(stack: Stack) -> None:
    stack.start(WEB | {"worker": SLEEPER}, "--no-set-up", **NO_SERVERS)
    stack.await_line("ready:")
    web, worker = one(stack, "web.py"), one(stack, "sleep")
    worker.kill()
    stack.await_line("worker was killed by SIGKILL; starting it again in 0.5 s")
    wait_for(lambda: find(stack, "sleep"))
    assert one(stack, "sleep").pid != worker.pid
    assert web.is_running()


def test_pauses_between_starts_grow(stack: Stack) -> None:
    stack.start({"flaky": "sh -c 'exit 3'"}, "--no-set-up", **NO_SERVERS)
    for pause in ("0.5", "1", "2"):
        stack.await_line(f"flaky ended with exit status 3; starting it again in {pause} s")


def test_an_embedded_server_that_dies_is_started_again(stack: Stack) -> None:
    stack.start(WEB, "--no-set-up")
    stack.await_line("ready:")
    one(stack, "valkey-server").kill()
    stack.await_line("valkey was killed by SIGKILL")
    wait_for(lambda: find(stack, "valkey-server"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_everything(stack: Stack, number: signal.Signals) -> None:
    stack.start(WEB | {"worker": PARENT}, "--no-set-up", **NO_SERVERS)
    stack.await_line("ready:")
    assert stack.process is not None
    stack.process.send_signal(number)
    assert stack.end() == 0
    assert processes_of(stack.var) == []


def test_web_stops_first_and_servers_last(stack: Stack) -> None:
    said = "sh -c \"trap 'echo %s stops; exit' TERM; echo %s runs; while true; do sleep 0.05; done\""
    names = ("model-host", "worker-default", "web")
    stack.start({name: said % (name, name) for name in names}, "--no-set-up")
    for name in names:
        stack.await_line(f"{name} runs")
    assert stack.process is not None
    stack.process.terminate()
    stack.end()
    ends = ["web stops", "worker-default stops", "model-host stops", "received fast shutdown request"]
    assert sorted(ends, key=stack.log.index) == ends


def test_a_second_signal_kills_what_does_not_end(stack: Stack) -> None:
    stack.start({"worker": STUBBORN}, "--no-set-up", **NO_SERVERS)
    stack.await_line("stubborn")
    assert stack.process is not None
    stack.process.terminate()
    stack.await_line("stopping")
    stack.process.terminate()
    assert stack.end() == 0
    assert processes_of(stack.var) == []


@pytest.mark.parametrize("victims", ["guard", "supervisor", "both"])
def test_kill_9_leaves_no_process(stack: Stack, victims: str) -> None:
    stack.start(WEB | {"worker": PARENT, "model-host": SLEEPER}, "--no-set-up")
    stack.await_line("ready:")
    assert stack.process is not None
    guard = psutil.Process(stack.process.pid)
    (supervisor,) = guard.children()
    assert {"postgres", "valkey-server"} <= {process.name() for process in processes_of(stack.var)}
    # Of a killed pair, grandchildren are beyond anybody's reach: the kernel ends direct children alone.
    grandchildren = find(stack, "sleep") if victims == "both" else []
    for process in {"guard": [guard], "supervisor": [supervisor], "both": [guard, supervisor]}[victims]:
        process.kill()
    wait_for(lambda: not set(processes_of(stack.var)) - set(grandchildren))


def test_a_taken_port_is_one_sentence_and_exit_code_2(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", stack.port)):
        stack.start(WEB, "--no-set-up", **NO_SERVERS)
        assert stack.end() == 2
    assert stack.log.splitlines() == [
        f"tenantry: Port {stack.port} on 127.0.0.1 cannot be used (Address already in use): "
        "choose another one with PORT=..."
    ]


def test_the_same_folder_twice_is_one_sentence_and_exit_code_2(stack: Stack, tmp_path: Path) -> None:
    stack.start(WEB, "--no-set-up", **NO_SERVERS)
    stack.await_line("ready:")
    (tmp_path / "second").mkdir()
    second = Stack(tmp_path / "second", stack.var)
    second.start(WEB, "--no-set-up", **NO_SERVERS)
    assert second.end() == 2
    assert second.log.startswith(f"tenantry: A stack is already running on {stack.var} (process ")
    assert len(second.log.splitlines()) == 1


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WEB_WORKERS": "many"}, "WEB_WORKERS must be a whole number above zero, not 'many'."),
        ({"INFERENCE_THREADS": "0"}, "INFERENCE_THREADS must be a whole number above zero, not '0'."),
    ],
)
def test_a_bad_value_is_one_sentence_and_exit_code_2(stack: Stack, environment: dict[str, str], said: str) -> None:
    stack.start(WEB, "--no-set-up", **NO_SERVERS, **environment)
    assert stack.end() == 2
    assert stack.log == f"tenantry: {said}\n"


def test_the_operators_password_is_shown_on_the_first_start_alone(stack: Stack) -> None:
    manage_py(
        stack, 'kept.exists() or kept.write_text(json.dumps({"email": "operator@localhost", "password": "s3cr3t"}))'
    )
    for is_first in (True, False):
        stack.start(WEB, **NO_SERVERS)
        stack.await_line("Ctrl-C stops everything")
        assert ("s3cr3t" in stack.log) is is_first
        assert f"in {stack.var / 'operator.json'}" in stack.log
        assert stack.process is not None
        stack.process.terminate()
        stack.end()


def test_a_failed_set_up_ends_the_stack_and_says_at_what(stack: Stack) -> None:
    manage_py(stack, 'sys.exit("no such table")')
    stack.start(WEB, **NO_SERVERS)
    assert stack.end() == 1
    assert "no such table" in stack.log
    assert stack.log.splitlines()[-1].startswith("tenantry: Setting up failed at `manage.py upgrade`")
    assert processes_of(stack.var) == []


def test_static_files_are_collected_again_only_when_something_changed(stack: Stack) -> None:
    manage_py(
        stack, '"collectstatic" in sys.argv and (print("collecting"), kept.with_name("static").mkdir(exist_ok=True))'
    )
    stack.root.joinpath("static").mkdir()
    for bucket, file, is_collected in (("", "a", True), ("", "a", False), ("", "b", True), ("mine", "b", True)):
        if not stack.root.joinpath("static", file).exists():
            stack.root.joinpath("static", file).touch()
        stack.start(WEB, "--", "true", action="run", AWS_STORAGE_BUCKET_NAME=bucket, **NO_SERVERS)
        assert stack.end() == 0
        assert ("collecting" in (stack.var / "stack.log").read_text()) is is_collected


def manage_py(stack: Stack, line: str) -> None:
    """A manage.py all of whose commands do the same."""
    program = f"""
        import json, os, pathlib, sys
        kept = pathlib.Path(os.environ["TENANTRY_VAR"], "operator.json")
        {line}
    """
    stack.root.joinpath("manage.py").write_text(textwrap.dedent(program))


def test_run_starts_the_stack_for_one_command_and_ends_with_its_status(stack: Stack) -> None:
    program = "import os, sys, urllib.request as r; print(r.urlopen(os.environ['TENANTRY_URL']).status); sys.exit(7)"
    stack.start(WEB, "--no-set-up", "--", "python", "-c", program, action="run", **NO_SERVERS)
    assert stack.end() == 7
    assert stack.log == "200\n"
    assert processes_of(stack.var) == []


def test_settings_of_the_env_file_reach_the_processes_below_those_of_the_environment(stack: Stack) -> None:
    stack.root.joinpath(".env").write_text("# a comment\nexport FIRST='from file'\nSECOND=from file\n")
    stack.start({"worker": 'sh -c "echo $FIRST, $SECOND"'}, "--no-set-up", SECOND="from outside", **NO_SERVERS)
    stack.await_line("from file, from outside")


def test_servers_runs_a_command_beside_them(stack: Stack) -> None:
    program = "import json, os; print(json.dumps(sorted({'DATABASE_URL', 'REDIS_URL'} & set(os.environ))))"
    stack.start_action("servers", "--var", str(stack.var), "--", "python", "-c", program)
    assert stack.end() == 0
    assert json.loads(stack.log) == ["DATABASE_URL", "REDIS_URL"]
    assert processes_of(stack.var) == []


def find(stack: Stack, word: str) -> list[psutil.Process]:
    """The stack's processes whose own program or script is this."""
    return [
        process
        for process in processes_of(stack.var)
        if word in [os.path.basename(part) for part in process.cmdline()[:2]]  # noqa: PTH119 not all are paths
    ]


def one(stack: Stack, word: str) -> psutil.Process:
    (process,) = find(stack, word)
    return process
