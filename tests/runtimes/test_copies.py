"""A version that is asked more than one runner can answer has several, for as long as that is so."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from runtimes.client import HostClient, Runner
from runtimes.demand import COOL_LOOKS, HOT_LOOKS, Demand, Load, Traffic
from runtimes.limits import MIB
from tests.runtimes import hosts
from tests.runtimes.conftest import Load as Loader
from tests.runtimes.payloads import predicting

ROW = np.zeros((1, 2))
SIGNATURE = {"layout": "tensor", "inputs": [{"name": "x", "dtype": "float64", "shape": [-1, 2]}], "outputs": []}
WORKING = "import time; end = time.monotonic() + 0.03\nwhile time.monotonic() < end: pass\nreturn [7] * len(rows)"
HEAVY = "sys.ballast = getattr(sys, 'ballast', None) or bytearray(b'x' * (14 << 20))\n"
ROOM = 60 * MIB  # of which a tenant may have half: two runners of some 10 MiB, and one that is heavy
HOT, COOL = Load(busy=1.0, calls=4.0), Load(busy=0.1, calls=0.1)


def test_a_version_is_busy_when_requests_wait_look_after_look() -> None:
    demand = Demand()

    answers = [demand.look([HOT]) for _ in range(2 * HOT_LOOKS)]

    assert answers == ([0] * (HOT_LOOKS - 1) + [1]) * 2


@pytest.mark.parametrize(
    "load",
    [
        pytest.param(Load(busy=1.0, calls=1.0), id="a runner that works, and nobody waits"),
        pytest.param(Load(busy=0.3, calls=30.0), id="clients that wait for themselves"),
        pytest.param(COOL, id="hardly any load"),
    ],
)
def test_no_runner_is_added_where_it_would_not_help(load: Load) -> None:
    demand = Demand()

    assert not any(demand.look([load]) for _ in range(10))


def test_a_moments_calm_begins_the_count_anew() -> None:
    demand = Demand()
    looks = [[HOT], [COOL]] * HOT_LOOKS

    assert not any(demand.look(loads) for loads in looks)


def test_a_runner_too_many_goes_once_the_others_can_do_its_work() -> None:
    demand = Demand()

    answers = [demand.look([COOL, COOL]) for _ in range(COOL_LOOKS)]

    assert answers == [0] * (COOL_LOOKS - 1) + [-1]
    assert not any(Demand().look([Load(0.6, 0.6)] * 2) for _ in range(2 * COOL_LOOKS))


def test_open_calls_are_those_of_every_client() -> None:
    traffic = Traffic()
    traffic.report("one process", 3, 2, 0.5)
    traffic.report("another", 1, 1, 0.5)

    assert (traffic.open_calls, traffic.calls, traffic.seconds) == (3, 4, 1.0)
    traffic.report("one process", 0, 0, 0.0)
    assert traffic.open_calls == 1


@pytest.fixture(scope="module")
def wide_host() -> Iterator[HostClient]:
    """A client of a host that gives a version two runners at most, and has little room."""
    with tempfile.TemporaryDirectory(prefix="tnt") as name:
        process, client = hosts.start(Path(name), "--max-copies", "2", "--memory-bytes", str(ROOM))
        yield client
        hosts.stop(process)


class Callers:
    """Threads that ask one runner again and again; what went wrong, if anything did."""

    def __init__(self, runner: Runner, count: int, pause_s: float = 0.0) -> None:
        self._runner, self._pause_s = runner, pause_s
        self._over = threading.Event()
        self._threads = ThreadPoolExecutor(count)
        self._asked = [self._threads.submit(self._ask) for _ in range(count)]

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._threads.shutdown()
        for asked in self._asked:
            asked.result()

    def _ask(self) -> None:
        while not self._over.wait(self._pause_s):
            prediction = self._runner.predict(ROW, deadline_s=30)
            assert prediction.outputs["prediction"].tolist() == [7]


def generations(client: HostClient, key: str) -> set[int]:
    return {runner["generation"] for runner in client.stats().runners if runner["key"] == key}


def test_a_busy_version_gets_a_runner_more_until_it_is_idle(wide_host: HostClient, load_request: Loader) -> None:
    runner = wide_host.runner("busy", load_request(predicting(WORKING), signature=SIGNATURE))
    other = HostClient(str(wide_host._path))  # as in another process, which hears of it, too
    with Callers(other.runner("busy", load_request(b"")), 1, pause_s=0.2):
        with Callers(runner, 5):
            assert hosts.eventually(lambda: len(generations(wide_host, "busy")) == 2, 30)
            assert hosts.eventually(lambda: all(r["calls"] > 3 for r in wide_host.stats().runners), 10)
            assert len(other._directory.known_ways("busy")) == 2
        assert hosts.eventually(lambda: len(generations(wide_host, "busy")) == 1, 30)

    assert (wide_host.stats().copies, wide_host.stats().retired) == (1, 1)
    assert wide_host.stats().evictions == 0


def test_no_runner_is_added_where_it_would_take_anothers_room(wide_host: HostClient, load_request: Loader) -> None:
    wide_host.clear()
    before = wide_host.stats()
    runner = wide_host.runner("heavy", load_request(predicting(HEAVY + WORKING), signature=SIGNATURE))

    with Callers(runner, 5):
        assert hosts.eventually(lambda: wide_host.stats().bytes > ROOM / 4)
        time.sleep(3)

    after = wide_host.stats()
    assert (after.copies, after.evictions) == (before.copies, before.evictions)


def test_a_drained_version_answers_what_is_in_flight_and_ends(wide_host: HostClient, load_request: Loader) -> None:
    wide_host.clear()
    slow = load_request(predicting("import time; time.sleep(1.5); return [7] * len(rows)"), signature=SIGNATURE)
    runner = wide_host.runner("replaced", slow)
    runner.predict(ROW, deadline_s=30)
    (before,) = generations(wide_host, "replaced")
    with ThreadPoolExecutor(1) as threads:
        in_flight = threads.submit(runner.predict, ROW, deadline_s=30)
        time.sleep(0.5)

        assert HostClient(str(wide_host._path)).drain("replaced")

        assert not wide_host.resident("replaced")
        assert in_flight.result().outputs["prediction"].tolist() == [7]
    assert hosts.eventually(lambda: before not in generations(wide_host, "replaced"))
    runner.predict(ROW, deadline_s=30)
    assert generations(wide_host, "replaced")
    assert not wide_host.drain("never there")
