"""A caller's deadline covers a cold model: waiting for another's load, the load itself, and one more after a loss."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import cloudpickle
import numpy as np
import pytest

from runtimes.client import HostClient, LoadRequest
from runtimes.errors import DeadlineExceeded, ModelError
from runtimes.limits import Limits
from tests.runtimes import hosts
from tests.runtimes.conftest import Load
from tests.runtimes.payloads import predicting

SIGNATURE = {"layout": "tensor", "inputs": [{"name": "x", "dtype": "float64", "shape": [-1, 2]}], "outputs": []}
ROW = np.zeros((1, 4))
DEADLINE_SECONDS = 0.3
LOADING_SECONDS = 2.0
SLOW = f"""
import time

class Slow:
    n_features_in_ = 4
    def __init__(self):
        self.answer = 7
    def __setstate__(self, state):
        time.sleep({LOADING_SECONDS})
        self.__dict__.update(state)
    def predict(self, rows):
        return [self.answer] * len(rows)
"""


@pytest.fixture
def slow(client: HostClient, load_request: Load) -> Callable[[], LoadRequest]:
    """A loader of a model that takes long to load in its runner."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(SLOW, space)
    client.check()  # the host is warm
    return load_request(cloudpickle.dumps(space["Slow"]()))


def unwanted() -> LoadRequest:
    raise AssertionError("it was loaded again")


@contextmanager
def refused_in_time() -> Iterator[None]:
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        yield
    assert time.monotonic() - started < 1.5


def test_a_slow_load_is_not_waited_for_and_serves_the_next_caller(
    client: HostClient, slow: Callable[[], LoadRequest]
) -> None:
    with refused_in_time():
        client.runner("slow to load", slow, DEADLINE_SECONDS)

    runner = client.runner("slow to load", unwanted, 30)

    assert runner.predict(ROW, deadline_s=30).outputs["prediction"].tolist() == [7]


def test_another_callers_load_is_not_waited_for(client: HostClient, slow: Callable[[], LoadRequest]) -> None:
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(client.runner, "of another", slow)
        time.sleep(DEADLINE_SECONDS)
        with refused_in_time():
            HostClient(str(client._path)).runner("of another", unwanted, DEADLINE_SECONDS)
        first.result(30)

    assert client.resident("of another")


def test_what_a_late_loader_gave_is_loaded_for_the_next_caller(
    client: HostClient, classifier: Any, load_request: Load
) -> None:
    load = load_request(classifier)

    def late() -> LoadRequest:
        time.sleep(2 * DEADLINE_SECONDS)
        return load()

    with refused_in_time():
        client.runner("late", late, DEADLINE_SECONDS)

    assert hosts.eventually(lambda: client.resident("late"))


def test_no_time_is_no_load_and_leaves_no_duty(client: HostClient, classifier: Any, load_request: Load) -> None:
    with refused_in_time():
        client.runner("no time", unwanted, 0)

    client.runner("no time", load_request(classifier), 30)


def test_a_prediction_that_finds_its_runner_gone_keeps_its_deadline(
    client: HostClient, slow: Callable[[], LoadRequest]
) -> None:
    runner = client.runner("lost", slow)
    client.evict("lost")

    with refused_in_time():
        runner.predict(ROW, deadline_s=DEADLINE_SECONDS)


def test_a_call_takes_no_longer_than_its_version_may_however_long_its_caller_waits(
    client: HostClient, load_request: Load
) -> None:
    limits = Limits(call_seconds=0.5)
    hung = load_request(predicting("while True: pass"), signature=SIGNATURE, limits=limits)
    runner = client.runner("hung", hung)
    started = time.monotonic()

    with pytest.raises(DeadlineExceeded, match=r"0\.5 seconds"):
        runner.predict(np.zeros((1, 2)), deadline_s=60)

    assert time.monotonic() - started < 10
    assert not client.resident("hung")


def test_calls_that_wait_for_others_are_no_fault_of_their_runner(client: HostClient, load_request: Load) -> None:
    limits = Limits(call_seconds=2.0, rows=1)  # no two requests are predicted together
    code = "import time; time.sleep(0.3); return [7] * len(rows)"
    runner = client.runner("queue", load_request(predicting(code), signature=SIGNATURE, limits=limits))
    kills = client.stats().kills

    with ThreadPoolExecutor(10) as threads:
        asked = [threads.submit(runner.predict, np.zeros((1, 2)), deadline_s=60) for _ in range(10)]

    assert [one.result().outputs["prediction"].tolist() for one in asked] == [[7]] * 10
    assert client.stats().kills == kills


def test_a_version_takes_no_more_rows_than_it_may(client: HostClient, classifier: Any, load_request: Load) -> None:
    runner = client.runner("few rows", load_request(classifier, limits=Limits(rows=3)))

    runner.predict(np.zeros((3, 4)), deadline_s=30)

    with pytest.raises(ModelError, match="at most 3 rows"):
        runner.predict(np.zeros((4, 4)), deadline_s=30)
