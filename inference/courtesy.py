"""While several tenants ask a machine, one that asks much waits for itself, so that the others notice little of it.

Who asks alone is never held up. Beside others, a tenant has few predictions at work in a process; if still more of its
own wait when one of them ends, the next begins only after a pause, which keeps the tenant within its share of the
process's time: its requests would otherwise take the interpreter and the cores from whoever asks now and then. No
request waits long for that, so that one that asks for slow predictions has as many of them at work as it likes.
"""

import mmap
import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from zlib import crc32

import numpy as np
from django.conf import settings

from models_registry.spooling import spool_folder

MOST_AT_WORK = 2
LONGEST_WAIT_S = 0.25
SEVERAL_FOR_S = 1.0  # after another tenant has asked
PLACES = 1024  # of tenants; two of one place are taken for one


class Asked:
    """When tenants asked last, as the processes of this machine tell each other in a page of shared memory.

    Times are of the machine's monotonic clock, in seconds; no lock, since a time that is lost is told again soon.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._times = np.frombuffer(_shared(file, 8 * PLACES), np.float64)

    def note(self, whose: str, now: float) -> None:
        """This tenant asks now."""
        self._times[_place(whose)] = now

    def by_several(self, now: float, within_s: float) -> bool:
        """Whether more than one tenant asked lately. Times later than now are of before the machine's start."""
        return int(np.count_nonzero((self._times > now - within_s) & (self._times <= now + within_s))) > 1


def _shared(file: Path | None, size: int) -> mmap.mmap:
    """Memory that all who name this file have in common; without a file, this process alone has it."""
    if file is None:
        return mmap.mmap(-1, size)
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size)
        return mmap.mmap(fd, size)
    finally:
        os.close(fd)


@lru_cache(maxsize=4096)
def _place(whose: str) -> int:
    return crc32(whose.encode()) % PLACES


@dataclass
class Line:
    """A tenant's predictions in this process. next_at: before which no waiting one begins."""

    at_work: int = 0
    waiting: deque[threading.Event] = field(default_factory=deque)
    next_at: float = 0.0


class Courtesy:
    """The lines of a process.

    asked: what the machine's processes know of each other's tenants.
    share: of the process's time, for a tenant whose predictions wait for each other; 1 leaves out the pauses.
    """

    def __init__(
        self,
        share: float,
        *,
        most_at_work: int = MOST_AT_WORK,
        longest_wait_s: float = LONGEST_WAIT_S,
        several_for_s: float = SEVERAL_FOR_S,
        asked: Asked | None = None,
    ) -> None:
        self._pause_for_work = most_at_work / share - 1 if share < 1 else 0.0
        self._most_at_work, self._longest_wait_s, self._several_for_s = most_at_work, longest_wait_s, several_for_s
        self._lock = threading.Lock()
        self._lines: defaultdict[str, Line] = defaultdict(Line)
        self._asked = asked or Asked()

    @contextmanager
    def turn(self, whose: str) -> Iterator[None]:
        """Have a turn during the block: now, after the tenant's earlier ones and a pause, or after the longest wait."""
        if (event := self._begin(whose)) is not None:
            self._wait(whose, event)
        started = time.monotonic()
        try:
            yield
        finally:
            self._end(whose, time.monotonic() - started)

    def _begin(self, whose: str) -> threading.Event | None:
        """None where the turn is there, else what tells when it is."""
        self._asked.note(whose, time.monotonic())
        with self._lock:
            line = self._lines[whose]
            if line.at_work < self._most_at_work or not self._several_ask():
                line.at_work += 1
                return None
            event = threading.Event()
            line.waiting.append(event)
            return event

    def _several_ask(self) -> bool:
        return self._asked.by_several(time.monotonic(), self._several_for_s)

    def _wait(self, whose: str, event: threading.Event) -> None:
        latest = time.monotonic() + self._longest_wait_s
        if event.wait(self._longest_wait_s):
            time.sleep(max(0.0, min(self._lines[whose].next_at, latest) - time.monotonic()))
            return
        with self._lock:
            if not event.is_set():  # else the turn has just come
                self._lines[whose].waiting.remove(event)
                self._lines[whose].at_work += 1

    def _end(self, whose: str, took_s: float) -> None:
        with self._lock:
            line = self._lines[whose]
            line.at_work -= 1
            several_ask = bool(line.waiting) and self._several_ask()
            line.next_at = time.monotonic() + took_s * self._pause_for_work if several_ask else 0.0
            while line.waiting and (line.at_work < self._most_at_work or not several_ask):
                line.waiting.popleft().set()
                line.at_work += 1
            if not line.at_work:  # then nobody waits either
                del self._lines[whose]


@cache
def courtesy() -> Courtesy:
    """The process's own."""
    file = Path(spool_folder()) / "asked"
    return Courtesy(settings.TENANT_SHARE_PERCENT / 100, asked=Asked(file))
