"""A tenant that asks much waits for itself while others ask, and for nobody when it is alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from inference.courtesy import Asked, Courtesy

ALL = 1.0  # of the process's time: no pauses
MANY = 6
LONG_S = 60.0


class Work:
    """Turns of one tenant that last until they are let go; how many had theirs at once."""

    def __init__(self, courtesy: Courtesy, whose: str) -> None:
        self._courtesy, self._whose = courtesy, whose
        self._lock = threading.Lock()
        self._may_end = threading.Event()
        self.at_work, self.most_at_work = 0, 0

    def do(self) -> None:
        with self._courtesy.turn(self._whose):
            with self._lock:
                self.at_work += 1
                self.most_at_work = max(self.most_at_work, self.at_work)
            assert self._may_end.wait(10)
            with self._lock:
                self.at_work -= 1

    def let_go(self) -> None:
        self._may_end.set()


def test_who_asks_alone_waits_for_nobody() -> None:
    courtesy = Courtesy(ALL, most_at_work=2)
    work = Work(courtesy, "one")

    with ThreadPoolExecutor(MANY) as threads:
        asked = [threads.submit(work.do) for _ in range(MANY)]
        _until(lambda: work.at_work == MANY)
        work.let_go()

    assert all(one.exception() is None for one in asked)


def test_who_asks_much_beside_others_waits_for_itself_and_others_do_not() -> None:
    courtesy = Courtesy(ALL, most_at_work=2, longest_wait_s=LONG_S, several_for_s=LONG_S)
    work = Work(courtesy, "greedy")
    _ask_once(courtesy, "modest")
    _ask_once(courtesy, "greedy")

    with ThreadPoolExecutor(MANY) as threads:
        asked = [threads.submit(work.do) for _ in range(MANY)]
        _until(lambda: len(courtesy._lines["greedy"].waiting) == MANY - 2)
        _ask_once(courtesy, "modest")  # which would wait for a minute
        assert work.most_at_work == 2
        work.let_go()

    assert all(one.exception() is None for one in asked)
    assert not courtesy._lines


def test_who_asks_another_process_of_the_machine_is_among_the_others(tmp_path: Path) -> None:
    here, there = (
        Courtesy(ALL, most_at_work=1, longest_wait_s=LONG_S, several_for_s=LONG_S, asked=Asked(tmp_path / "asked"))
        for _ in range(2)
    )
    work = Work(here, "greedy")
    _ask_once(there, "modest")

    with ThreadPoolExecutor(MANY) as threads:
        asked = [threads.submit(work.do) for _ in range(MANY)]
        _until(lambda: len(here._lines["greedy"].waiting) == MANY - 1)
        work.let_go()

    assert all(one.exception() is None for one in asked)
    assert work.most_at_work == 1


@pytest.mark.parametrize("asked_at", [900.0, 1_100.0], ids=["long ago", "before the machine's start"])
def test_times_that_are_not_of_now_are_nobody(asked_at: float) -> None:
    asked = Asked()
    asked.note("modest", asked_at)
    asked.note("greedy", 1_000.0)
    assert not asked.by_several(1_000.0, within_s=1.0)


def test_slow_predictions_are_held_up_for_a_moment_only() -> None:
    courtesy = Courtesy(ALL, most_at_work=1, longest_wait_s=0.02, several_for_s=LONG_S)
    work = Work(courtesy, "slow")
    _ask_once(courtesy, "modest")

    with ThreadPoolExecutor(MANY) as threads:
        asked = [threads.submit(work.do) for _ in range(MANY)]
        _until(lambda: work.at_work == MANY)
        work.let_go()

    assert all(one.exception() is None for one in asked)
    assert not courtesy._lines


def test_who_asks_without_a_pause_beside_others_gets_its_share_of_the_time() -> None:
    courtesy = Courtesy(0.25, most_at_work=1, longest_wait_s=LONG_S, several_for_s=LONG_S)
    took_s = 0.02
    starts: list[float] = []

    def work() -> None:
        with courtesy.turn("greedy"):
            starts.append(time.monotonic())
            time.sleep(took_s)

    _ask_once(courtesy, "modest")
    with ThreadPoolExecutor(MANY) as threads:
        asked = [threads.submit(work) for _ in range(MANY)]
    assert all(one.exception() is None for one in asked)
    assert len(starts) == MANY
    assert all(later - earlier >= 4 * took_s for earlier, later in pairwise(starts))
    assert not courtesy._lines


def _ask_once(courtesy: Courtesy, whose: str) -> None:
    with courtesy.turn(whose):
        pass


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)
