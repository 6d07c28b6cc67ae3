"""The life of the model host, its zygotes and its runners."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes import addresses
from runtimes.client import HostClient
from runtimes.errors import ArtifactRejected, ConfinementUnavailable, HostUnavailable
from tests.runtimes import hosts
from tests.runtimes.conftest import Load, bundle_of
from tests.runtimes.payloads import SUCCEEDED, running

ROW = np.zeros((1, 4))
# starts a host on a kernel that seems to know no Landlock
WITHOUT_LANDLOCK = """
import errno, os, pyseccomp, sys
filter_ = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
filter_.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "landlock_create_ruleset")
filter_.load()
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture
def own_host(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], HostClient]]:
    """A host that the test may harm."""
    process, client = hosts.start(folder)
    yield process, client
    process.kill()
    process.wait()


Host = tuple[subprocess.Popen[bytes], HostClient]


def pids(client: HostClient) -> list[int]:
    return [int(runner["pid"]) for runner in client.stats().runners]


def test_a_killed_host_takes_all_with_it_and_its_successor_serves_on(
    own_host: Host, folder: Path, classifier: Any, load_request: Load
) -> None:
    process, client = own_host
    runner = client.runner("a", load_request(classifier))
    runner.predict(ROW, deadline_s=30)
    processes = [*pids(client), *client.stats().zygotes.values()]

    process.kill()
    process.wait()

    assert hosts.eventually(lambda: not any(hosts.is_alive(pid) for pid in processes))
    with pytest.raises(HostUnavailable) as fault:
        runner.predict(ROW, deadline_s=5)
    assert fault.value.is_retryable
    with hosts.ended(hosts.start(folder)):
        assert runner.predict(ROW, deadline_s=60).outputs["prediction"].tolist() == [0]


def test_a_host_told_to_end_ends_its_runners_and_leaves_nothing(
    own_host: Host, folder: Path, classifier: Any, load_request: Load
) -> None:
    process, client = own_host
    client.runner("a", load_request(classifier))
    processes = pids(client)

    process.send_signal(signal.SIGTERM)

    assert process.wait(10) == 0
    assert hosts.eventually(lambda: not any(hosts.is_alive(pid) for pid in processes))
    assert not (folder / "models.sock").exists()
    assert list((folder / "models.sock.d").iterdir()) == []


def test_a_host_ends_whichever_of_its_threads_gets_the_signal(own_host: Host) -> None:
    """The one that waits for clients may be about to wait, or another one may be chosen: then nothing interrupts it."""
    process, _ = own_host
    others = [int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir() if int(task.name) != process.pid]

    assert ctypes.CDLL(None).tgkill(process.pid, others[0], signal.SIGTERM) == 0

    assert process.wait(10) == 0


def test_a_killed_zygote_is_replaced_and_its_runners_live_on(
    own_host: Host, classifier: Any, load_request: Load
) -> None:
    _, client = own_host
    first = client.runner("first", load_request(classifier))
    first.predict(ROW, deadline_s=30)
    before = pids(client)
    zygote = client.stats().zygotes["sklearn"]
    os.kill(zygote, signal.SIGKILL)
    assert hosts.eventually(lambda: not hosts.is_alive(zygote))

    client.runner("second", load_request(classifier)).predict(ROW, deadline_s=60)

    assert first.predict(ROW, deadline_s=30).outputs["prediction"].tolist() == [0]
    assert before[0] in pids(client)
    assert client.stats().zygotes["sklearn"] != zygote


def test_a_second_host_at_the_same_socket_is_refused(client: HostClient) -> None:
    second = subprocess.run(
        hosts.command(client._path), cwd=hosts.ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert second.returncode == 1
    assert "already listens" in second.stderr
    assert client.check()


def test_sockets_lie_in_a_folder_of_their_own(client: HostClient, classifier: Any, load_request: Load) -> None:
    client.runner("a", load_request(classifier))

    assert Path(f"{client._path}.d").stat().st_mode & 0o777 == 0o700
    assert client._path.stat().st_mode & 0o077 == 0


def test_a_socket_path_may_be_long(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120) / "models.sock"
    path.parent.mkdir()

    with addresses.listen(path) as listener, addresses.connect(path, 5) as client:
        accepted, _ = listener.accept()
        client.send(b"x")
        assert accepted.recv(1) == b"x"
        accepted.close()


def test_a_runner_is_unprivileged(any_client: HostClient, classifier: Any, load_request: Load) -> None:
    any_client.runner("unprivileged", load_request(classifier))
    pid = next(r["pid"] for r in any_client.stats().runners if r["key"] == "unprivileged")
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    read_everything = 1 << 2  # CAP_DAC_READ_SEARCH, which the way to libraries below a closed home needs

    assert "0" not in status["Uid"].split()
    assert status["Groups"].strip() == ""
    assert int(status["CapEff"], 16) in (0, read_everything)
    assert int(status["CapPrm"], 16) in (0, read_everything)
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"


def test_a_runner_keeps_no_capability_where_everybody_may_read_the_libraries(
    folder: Path, classifier: Any, load_request: Load
) -> None:
    if not hosts.can_open_namespaces():
        pytest.skip("needs root")
    with hosts.ended(hosts.start_in_the_open(folder, as_root=True)) as client:
        client.runner("a", load_request(classifier)).predict(ROW, deadline_s=60)
        text = Path(f"/proc/{pids(client)[0]}/status").read_text()

    status = dict(line.split(":\t", 1) for line in text.splitlines())
    assert "0" not in status["Uid"].split()
    assert int(status["CapPrm"], 16) == 0


def test_two_runners_under_root_have_different_users(client: HostClient, classifier: Any, load_request: Load) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root")
    for key in ("one user", "another user"):
        client.runner(key, load_request(classifier))
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids(client)]

    assert len(statuses) >= 2
    assert len({status.split("Uid:\t")[1].split()[0] for status in statuses}) == len(statuses)


def start_without_landlock(folder: Path, **environment: str) -> Host:
    arguments = hosts.command(folder / "models.sock")[1:]
    process = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_LANDLOCK, *arguments], cwd=hosts.ROOT, env={**os.environ, **environment}
    )
    hosts.wait_for(folder / "models.sock", process)
    return process, HostClient(str(folder / "models.sock"))


def test_where_nothing_can_be_confined_nothing_is_loaded(folder: Path, classifier: Any, load_request: Load) -> None:
    with hosts.ended(start_without_landlock(folder, TENANTRY_RUN_UNCONFINED="yes")) as client:
        with pytest.raises(ConfinementUnavailable, match="Landlock"):
            client.check()
        with pytest.raises(ConfinementUnavailable):
            client.runner("a", load_request(classifier))
        with pytest.raises(ConfinementUnavailable):
            client.inspect(bundle_of(running("")), tenant="acme", metadata={})


def test_an_operator_may_opt_out_of_confinement(folder: Path, classifier: Any, load_request: Load) -> None:
    """It also shows that the attack suite would notice: without confinement its code does reach the files."""
    with hosts.ended(start_without_landlock(folder, TENANTRY_RUN_UNCONFINED="i-trust-every-artifact")) as client:
        prediction = client.runner("a", load_request(classifier)).predict(ROW, deadline_s=60)
        with pytest.raises(ArtifactRejected, match=SUCCEEDED):
            client.inspect(bundle_of(running("result = open('/etc/passwd').read()[:9]")), tenant="acme", metadata={})

    assert prediction.outputs["prediction"].tolist() == [0]
