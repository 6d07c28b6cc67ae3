"""Every kind of runner is confined, whatever it was started for: by what its code can do, and seen from outside."""

from __future__ import annotations

import io
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from runtimes.bundle import pack
from runtimes.client import HostClient, LoadRequest
from runtimes.errors import RuntimeFault
from runtimes.limits import MIB, Limits
from tests.runtimes import attacks, hosts
from tests.runtimes.conftest import Load, bundle_of
from tests.runtimes.payloads import SUCCEEDED, complete, predicting, running
from tests.runtimes.world import World

SIGNATURE = {"layout": "tensor", "inputs": [{"name": "x", "dtype": "float64", "shape": [-1, 2]}], "outputs": []}
LIMITS = Limits(memory_bytes=512 * MIB, load_seconds=10.0, call_seconds=5.0, cpu_seconds=10)
READ_CAPABILITY = 1 << 2  # CAP_DAC_READ_SEARCH: an interpreter below a closed home is read by it
DEEDS = {
    **{name: attacks.FILES[name] for name in ("read a secret", "append to a file", "list the host's folder")},
    **{name: attacks.FILES[name] for name in ("write to the bundle", "open the bundle for writing by its descriptor")},
    **{name: attacks.SOCKETS[name] for name in ("connect by TCP", "connect to the model host", "pass a descriptor")},
    **{
        name: attacks.PROCESSES[name] for name in ("fork and stay", "kill the victim", "kill the host", "run a command")
    },
    **{name: attacks.KERNEL[name] for name in ("use io_uring", "make a namespace")},
}


def load(client: HostClient, code: str) -> str:
    return _told(lambda: client.runner(f"hostile load {hash(code)}", _loader(running(code))))


def predict(client: HostClient, code: str) -> str:
    artifact = predicting(complete(code))
    runner = client.runner(f"hostile call {hash(code)}", _loader(artifact))
    return _told(lambda: runner.predict(np.zeros((1, 2)), deadline_s=20))


def compile_it(client: HostClient, code: str) -> str:
    fd = bundle_of(running(code))
    try:
        options = {"signature": SIGNATURE}
        done: list[Any] = []
        told = _told(lambda: done.append(
            client.compile(fd, format_name="sklearn", options=options, out=io.BytesIO(), limits=LIMITS)
        ))  # fmt: skip
        return told or str(done[0])
    finally:
        os.close(fd)


def train(client: HostClient, code: str) -> str:
    files = {
        "data": b"a,b\n1,2\n3,4\n",
        "code/train.py": f"def train(*given):\n    exec({complete(code)!r}, {{}})".encode(),
    }
    with tempfile.TemporaryFile() as file:
        pack([(path, io.BytesIO(data), len(data)) for path, data in files.items()], file)
        return _told(lambda: client.fit_custom(
            params={}, target="b", validation={}, bundle_fd=file.fileno(), out=io.BytesIO(), format_name="csv",
            library_set="sklearn", limits=LIMITS, on_progress=lambda progress: None, is_cancelled=lambda: False,
        ))  # fmt: skip


def _loader(artifact: bytes) -> Callable[[], LoadRequest]:
    return lambda: LoadRequest(bundle_of(artifact), "acme", "sklearn", {"signature": SIGNATURE}, LIMITS)


def _told(work: Callable[[], object]) -> str:
    """What the fault says in which the work ends; nothing when it does not."""
    try:
        work()
    except RuntimeFault as fault:
        return fault.message
    return ""


PHASES = {"load": load, "predict": predict, "compile": compile_it, "train": train}


@pytest.fixture
def any_client(client: HostClient) -> HostClient:
    """The one host of these tests, for the fixture `neighbour`."""
    return client


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_does_run_the_code(client: HostClient, phase: str) -> None:
    """Otherwise the tests below would prove nothing."""
    assert f"{SUCCEEDED}: it ran" in PHASES[phase](client, "result = 'it ran'")


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("phase", PHASES)
def test_no_phase_brings_a_deed_about(client: HostClient, world: World, neighbour: Any, phase: str, deed: str) -> None:
    told = PHASES[phase](client, DEEDS[deed].format(**world.targets(client)))

    world.assert_untouched()
    assert told
    assert SUCCEEDED not in told
    assert world.secret_text not in told


def host_of(client: HostClient) -> psutil.Process:
    host = psutil.Process(next(iter(client.stats().zygotes.values()))).parent()
    assert host is not None
    return host


@contextmanager
def started(client: HostClient, work: Callable[[], object]) -> Iterator[int]:
    """The process of one-shot work that goes on while the block lasts, once it has been confined."""
    host = host_of(client)
    before = {child.pid for child in host.children()}
    thread = threading.Thread(target=_told, args=(work,))
    thread.start()
    try:
        found: list[int] = []

        def is_there() -> bool:
            found[:] = [child.pid for child in host.children() if child.pid not in before and is_confined(child.pid)]
            return bool(found)

        assert hosts.eventually(is_there, seconds=20)
        yield found[0]
    finally:
        thread.join(60)


def is_confined(pid: int) -> bool:
    """Whether it has done what it does before it reads a tenant's byte: the last of it is to fall silent."""
    try:
        is_silent = os.getuid() != 0 or Path(f"/proc/{pid}/fd/2").readlink() == Path("/dev/null")
        return is_silent and status_of(pid)["Seccomp"] == "2"
    except OSError:
        return False


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def assert_confined(pid: int) -> None:
    """All that can be seen from outside of a process that gave everything up."""
    status = status_of(pid)
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    assert int(status["CapEff"], 16) & ~READ_CAPABILITY == 0
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    limits = Path(f"/proc/{pid}/limits").read_text()
    for name in ("core file size", "file size", "locked memory", "msgqueue size"):
        assert next(line for line in limits.splitlines() if line.startswith(f"Max {name}")).split()[-3:-1] == ["0", "0"]
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
    assert os.getsid(pid) == pid
    if os.getuid() == 0:
        assert "0" not in status["Uid"].split() + status["Gid"].split()
        assert status["Groups"] == ""
        assert_holds_nothing_else(pid)


def descriptors_of(pid: int) -> dict[int, str]:
    """What each of a process's descriptors leads to."""
    return {int(path.name): str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}


def assert_holds_nothing_else(pid: int) -> None:
    """Its descriptors: /dev/null, its sockets, its bundle read-only, and what the kernel waits by."""
    for number, target in descriptors_of(pid).items():
        flags = int(Path(f"/proc/{pid}/fdinfo/{number}").read_text().split("flags:")[1].split()[0], 8)
        is_read_only_file = target.startswith("/") and flags & os.O_ACCMODE == os.O_RDONLY
        assert target == "/dev/null" or target.startswith(("socket:", "anon_inode:")) or is_read_only_file, target
    assert b"PYTEST" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_serving_runner_is_confined_as_seen_from_outside(
    client: HostClient, classifier: Any, load_request: Load
) -> None:
    client.runner("seen", load_request(classifier)).predict(np.zeros((1, 4)), deadline_s=10)
    runner = next(runner for runner in client.stats().runners if runner["key"] == "seen")

    assert_confined(int(runner["pid"]))


def test_an_inspection_is_confined_as_seen_from_outside(client: HostClient) -> None:
    fd = bundle_of(running("import time; time.sleep(1)"))
    with started(client, lambda: client.inspect(fd, tenant="acme", metadata={}, limits=LIMITS)) as pid:
        assert_confined(pid)
    os.close(fd)


def test_a_compilation_is_confined_as_seen_from_outside(client: HostClient) -> None:
    with started(client, lambda: compile_it(client, "import time; time.sleep(1)")) as pid:
        assert_confined(pid)


def test_a_tenants_program_is_confined_as_seen_from_outside(client: HostClient) -> None:
    with started(client, lambda: train(client, "import time; time.sleep(1)")) as pid:
        assert_confined(pid)


def test_a_fit_is_confined_as_seen_from_outside(client: HostClient) -> None:
    rows = "".join(f"{n},{n % 7},{n % 2}\n" for n in range(20_000))
    is_seen = threading.Event()
    with tempfile.TemporaryFile() as file:
        file.write(f"a,b,c\n{rows}".encode())
        file.flush()
        work = {
            "tenant": "acme", "trainer": "random_forest_classifier", "params": {"n_estimators": 300}, "target": "c",
            "validation": {}, "dataset_fd": file.fileno(), "out": io.BytesIO(),
            "is_cancelled": is_seen.is_set,
        }  # fmt: skip
        with started(client, lambda: client.fit(**work)) as pid:  # type: ignore[arg-type]
            assert_confined(pid)
            is_seen.set()


def test_no_zygote_keeps_what_it_passed_on(client: HostClient) -> None:
    """A zygote holds no bundle and no client's channel: the next runner is forked from it."""
    if os.getuid() != 0:
        pytest.skip("only root sees a zygote's descriptors")
    for pid in client.stats().zygotes.values():
        held = {number: target for number, target in descriptors_of(pid).items() if number > 2}
        assert [target.partition(":")[0] for target in held.values()] == ["socket"]
