"""While several tenants ask a process, none has more than a few predictions at work there; its others wait a moment.

Who asks alone is never held up. Beside others, a tenant that asks much waits for itself: its requests would otherwise
take the interpreter and the cores from whoever asks now and then. The wait is short, so that one that asks for slow
predictions has as many of them at work as it likes.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

MOST_AT_WORK = 2
LONGEST_WAIT_S = 0.25
SEVERAL_FOR_S = 0.5  # after two requests of different tenants, one after the other


class Courtesy:
    """The predictions of a process that are at work, and those that wait, for each tenant."""

    def __init__(
        self,
        most_at_work: int = MOST_AT_WORK,
        longest_wait_s: float = LONGEST_WAIT_S,
        several_for_s: float = SEVERAL_FOR_S,
    ) -> None:
        self._most_at_work, self._longest_wait_s, self._several_for_s = most_at_work, longest_wait_s, several_for_s
        self._lock = threading.Lock()
        self._at_work: dict[str, int] = {}
        self._waiting: dict[str, deque[threading.Event]] = {}
        self._asked_last = ""
        self._several_until = 0.0

    @contextmanager
    def turn(self, whose: str) -> Iterator[None]:
        """Have a turn during the block: now, or after the tenant's earlier ones, or after the longest wait."""
        if (event := self._begin(whose)) is not None and not event.wait(self._longest_wait_s):
            self._go_on(whose, event)
        try:
            yield
        finally:
            self._end(whose)

    def _begin(self, whose: str) -> threading.Event | None:
        """None where the turn is there, else what tells when it is."""
        with self._lock:
            if whose != self._asked_last:
                if self._asked_last:
                    self._several_until = time.monotonic() + self._several_for_s
                self._asked_last = whose
            at_work = self._at_work.get(whose, 0)
            if at_work < self._most_at_work or time.monotonic() >= self._several_until:
                self._at_work[whose] = at_work + 1
                return None
            event = threading.Event()
            self._waiting.setdefault(whose, deque()).append(event)
            return event

    def _end(self, whose: str) -> None:
        with self._lock:
            at_work = self._at_work.pop(whose) - 1
            waiting = self._waiting.get(whose)
            while waiting and (at_work < self._most_at_work or time.monotonic() >= self._several_until):
                waiting.popleft().set()
                at_work += 1
            if waiting is not None and not waiting:
                del self._waiting[whose]
            if at_work:
                self._at_work[whose] = at_work

    def _go_on(self, whose: str, event: threading.Event) -> None:
        """Wait no more, unless the turn has just come."""
        with self._lock:
            if not event.is_set():
                self._waiting[whose].remove(event)
                if not self._waiting[whose]:
                    del self._waiting[whose]
                self._at_work[whose] = self._at_work.get(whose, 0) + 1


@cache
def courtesy() -> Courtesy:
    """The process's own."""
    return Courtesy()
