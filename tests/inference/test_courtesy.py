"""A tenant that asks much waits for itself while others ask, and for nobody when it is alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from inference.courtesy import Courtesy

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
    courtesy = Courtesy(most_at_work=2)
    work = Work(courtesy, "one")

    with ThreadPoolExecutor(MANY) as threads:
        asked = [threads.submit(work.do) for _ in range(MANY)]
        _until(lambda: work.at_work == MANY)
        work.let_go()

    assert all(one.exception() is None for one in asked)


def test_who_asks_much_beside_others_waits_for_itself_and_others_do_not() -> None:
    courtesy = Courtesy(most_at_work=2, longest_wait_s=LONG_S, several_for_s=LONG_S)
    work = Work(courtesy, "greedy")
    _ask_once(courtesy, "modest")
    _ask_once(courtesy, "greedy")

    with ThreadPoolExecutor(MANY) as threads:
        asked = [threads.submit(work.do) for _ in range(MANY)]
        _until(lambda: len(courtesy._waiting.get("greedy", ())) == MANY - 2)
        _ask_once(courtesy, "modest")  # which would wait for a minute
        assert work.most_at_work == 2
        work.let_go()

    assert all(one.exception() is None for one in asked)
    assert (courtesy._at_work, courtesy._waiting) == ({}, {})


def test_slow_predictions_are_held_up_for_a_moment_only() -> None:
    courtesy = Courtesy(most_at_work=1, longest_wait_s=0.02, several_for_s=LONG_S)
    work = Work(courtesy, "slow")
    _ask_once(courtesy, "modest")

    with ThreadPoolExecutor(MANY) as threads:
        asked = [threads.submit(work.do) for _ in range(MANY)]
        _until(lambda: work.at_work == MANY)
        work.let_go()

    assert all(one.exception() is None for one in asked)
    assert (courtesy._at_work, courtesy._waiting) == ({}, {})


def _ask_once(courtesy: Courtesy, whose: str) -> None:
    with courtesy.turn(whose):
        pass


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)
