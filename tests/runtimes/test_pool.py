"""The pool of the machine, seen through its clients."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.client import HostClient, LoadRequest
from runtimes.errors import ArtifactRejected, PoolFull
from runtimes.limits import MIB
from tests.runtimes import hosts
from tests.runtimes.conftest import Load
from tests.runtimes.payloads import running

ROW = np.zeros((1, 4))
ROOM = 60 * MIB


class Weighty:
    """A model that holds so many MiB, filled when it is loaded."""

    n_features_in_ = 4

    def __init__(self, mebibytes: int) -> None:
        self.ballast = np.ones(mebibytes << 17)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        return np.full(len(rows), self.ballast[0])


@pytest.fixture(scope="module")
def small_pool() -> Iterator[HostClient]:
    """A client of a host with little room, of which a tenant may have two thirds."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="tnt") as name:
        process, client = hosts.start(Path(name), "--memory-bytes", str(ROOM), "--tenant-share", "0.67")
        yield client
        hosts.stop(process)


@pytest.fixture
def weighty(load_request: Load) -> Any:
    """Makes a loader of a model of so many MiB."""
    import cloudpickle

    def make(mebibytes: int, tenant: str = "acme") -> Any:
        model = Weighty(mebibytes)
        cloudpickle.register_pickle_by_value(__import__("tests.runtimes.test_pool", fromlist=["x"]))
        return load_request(cloudpickle.dumps(model), tenant=tenant)

    return make


def resident(client: HostClient) -> set[str]:
    return {runner["key"] for runner in client.stats().runners}


def pid_of(client: HostClient, key: str) -> int:
    return next(int(runner["pid"]) for runner in client.stats().runners if runner["key"] == key)


def test_fifty_clients_that_ask_for_a_cold_model_cause_one_load(
    client: HostClient, classifier: Any, load_request: Load
) -> None:
    load = load_request(classifier)
    loads: list[int] = []
    before = client.stats()

    def ask(number: int) -> list[int]:
        def counted() -> LoadRequest:
            loads.append(number)
            return load()

        runner = HostClient(str(client._path)).runner("asked for by many", counted)
        answer: list[int] = runner.predict(ROW, deadline_s=60).outputs["prediction"].tolist()
        return answer

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(ask, range(50)))

    after = client.stats()
    assert answers == [[0]] * 50
    assert len(loads) == 1
    assert (after.loads - before.loads, after.misses - before.misses + after.hits - before.hits) == (1, 50)


def test_the_duty_to_load_passes_on_when_a_loader_fails(
    client: HostClient, classifier: Any, load_request: Load
) -> None:
    def broken() -> LoadRequest:
        raise OSError("the storage is away")

    with pytest.raises(OSError, match="storage"):
        client.runner("passed on", broken)

    client.runner("passed on", load_request(classifier)).predict(ROW, deadline_s=30)


def test_a_failed_load_is_remembered_with_its_reason(client: HostClient, load_request: Load) -> None:
    with pytest.raises(ArtifactRejected) as first:
        client.runner("broken", load_request(running("raise ValueError('rotten')")))

    with pytest.raises(ArtifactRejected) as second:
        client.runner("broken", lambda: pytest.fail("it was loaded again"))

    assert first.value.reason == second.value.reason
    assert "rotten" in second.value.reason


def test_eviction_forgets_a_failure(client: HostClient, classifier: Any, load_request: Load) -> None:
    with pytest.raises(ArtifactRejected):
        client.runner("mended", load_request(running("")))

    client.evict("mended")

    client.runner("mended", load_request(classifier)).predict(ROW, deadline_s=30)


def test_a_runner_that_was_killed_is_replaced_unseen(client: HostClient, classifier: Any, load_request: Load) -> None:
    runner = client.runner("killed", load_request(classifier))
    runner.predict(ROW, deadline_s=30)
    first = pid_of(client, "killed")
    os.kill(first, signal.SIGKILL)

    prediction = runner.predict(ROW, deadline_s=30)

    assert prediction.outputs["prediction"].tolist() == [0]
    assert pid_of(client, "killed") != first


def test_an_evicted_runner_ends_and_is_loaded_again_when_asked_for(
    client: HostClient, classifier: Any, load_request: Load
) -> None:
    runner = client.runner("evicted", load_request(classifier))
    runner.predict(ROW, deadline_s=30)
    pid = pid_of(client, "evicted")

    assert client.evict("evicted")

    assert not hosts.is_alive(pid)
    assert not client.resident("evicted")
    assert not client.evict("evicted")
    runner.predict(ROW, deadline_s=30)
    assert client.resident("evicted")


def test_the_least_recently_used_model_goes_first(small_pool: HostClient, weighty: Any) -> None:
    small_pool.clear()
    for key, tenant in [("a", "acme"), ("b", "globex")]:
        small_pool.runner(key, weighty(15, tenant)).predict(ROW, deadline_s=30)
    HostClient(str(small_pool._path)).runner("a", lambda: pytest.fail("it is resident"))

    small_pool.runner("c", weighty(15, "initech")).predict(ROW, deadline_s=30)

    assert resident(small_pool) == {"a", "c"}
    assert small_pool.stats().bytes <= ROOM


def test_a_pinned_model_stays(small_pool: HostClient, weighty: Any) -> None:
    small_pool.clear()
    small_pool.pin("pinned")
    small_pool.runner("pinned", weighty(15))

    small_pool.runner("b", weighty(15, "globex"))
    small_pool.runner("c", weighty(15, "initech"))

    assert resident(small_pool) == {"pinned", "c"}
    small_pool.pin("pinned", pinned=False)


def test_a_tenant_over_its_share_evicts_its_own(small_pool: HostClient, weighty: Any) -> None:
    small_pool.clear()
    small_pool.runner("other", weighty(1, "globex"))

    for key in ("a", "b", "c"):  # two fit into the share and three do not, whether a runner itself takes 4 MiB or 10
        small_pool.runner(key, weighty(11, "acme"))

    assert "other" in resident(small_pool)
    assert "a" not in resident(small_pool)


def test_a_model_larger_than_the_pool_is_refused(small_pool: HostClient, weighty: Any) -> None:
    small_pool.clear()

    with pytest.raises(PoolFull):
        small_pool.runner("huge", weighty(80))

    assert resident(small_pool) == set()
    with pytest.raises(PoolFull, match="alone"):
        small_pool.runner("huge", lambda: pytest.fail("it was loaded again"))
    small_pool.evict("huge")


def test_a_pool_that_is_full_for_now_is_tried_again(small_pool: HostClient, weighty: Any) -> None:
    small_pool.clear()
    small_pool.pin("kept")
    small_pool.runner("kept", weighty(20))
    with pytest.raises(PoolFull):
        small_pool.runner("next", weighty(20))

    small_pool.pin("kept", pinned=False)

    small_pool.runner("next", weighty(20)).predict(ROW, deadline_s=30)
    assert resident(small_pool) == {"next"}


def test_eviction_gives_the_memory_back(small_pool: HostClient, weighty: Any) -> None:
    small_pool.clear()
    for key, tenant in [("a", "acme"), ("b", "globex")]:
        small_pool.runner(key, weighty(15, tenant))
    stats = small_pool.stats()
    pids = [int(runner["pid"]) for runner in stats.runners]
    assert sum(anonymous_bytes(pid) for pid in pids) > stats.bytes > 30 * MIB  # as the kernel tells anybody who asks
    assert all(runner["private_bytes"] > 15 * MIB for runner in stats.runners)

    small_pool.clear()

    assert sum(anonymous_bytes(pid) for pid in pids) == 0
    assert small_pool.stats().bytes == 0
    assert small_pool.stats().evicted_bytes - stats.evicted_bytes == pytest.approx(stats.bytes, rel=0.2)


def anonymous_bytes(pid: int) -> int:
    """The memory of a process that no file stands behind; none when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def test_counters_and_runners_are_readable(client: HostClient, classifier: Any, load_request: Load) -> None:
    before = client.stats()
    runner = client.runner("counted", load_request(classifier, tenant="globex"))
    for _ in range(5):
        runner.predict(ROW, deadline_s=30)

    assert hosts.eventually(
        lambda: [r["calls"] for r in client.stats().runners if r["key"] == "counted"] == [5], seconds=5
    )
    stats = client.stats()
    assert stats.load_seconds > before.load_seconds
    assert stats.loaded_bytes > before.loaded_bytes + MIB
    described = next(one for one in stats.runners if one["key"] == "counted")
    assert described["tenant"] == "globex"
    assert described["private_bytes"] > MIB
    assert (stats.loads, stats.misses) == (before.loads + 1, before.misses + 1)
