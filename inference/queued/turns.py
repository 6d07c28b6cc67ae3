"""Turns at a worker's threads: a tenant that sends much waits for itself, and leaves room for the others."""

import threading
from collections import deque
from collections.abc import Callable

Work = Callable[[], None]


class Turns:
    """At most so many threads work for one of those who share them. What comes beyond waits here, without a thread."""

    def __init__(self, most_each: int) -> None:
        self._most_each = most_each
        self._lock = threading.Lock()
        self._busy: dict[str, int] = {}
        self._set_aside: dict[str, deque[Work]] = {}

    def take(self, whose: str, work: Work) -> None:
        """Do the work now, and then what was set aside meanwhile; or set it aside for one who does the same."""
        if not self._begin(whose, work):
            return
        try:
            work()
        finally:
            self._go_on(whose)

    def _begin(self, whose: str, work: Work) -> bool:
        with self._lock:
            if self._busy.get(whose, 0) >= self._most_each:
                self._set_aside.setdefault(whose, deque()).append(work)
                return False
            self._busy[whose] = self._busy.get(whose, 0) + 1
            return True

    def _go_on(self, whose: str) -> None:
        """Do what was set aside, one after the other, whatever becomes of each."""
        while (work := self._next(whose)) is not None:
            try:
                work()
            except BaseException:
                self._go_on(whose)
                raise

    def _next(self, whose: str) -> Work | None:
        with self._lock:
            if waiting := self._set_aside.get(whose):
                work = waiting.popleft()
                if not waiting:
                    del self._set_aside[whose]
                return work
            self._busy[whose] -= 1
            if not self._busy[whose]:
                del self._busy[whose]
            return None
