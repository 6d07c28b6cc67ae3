"""Telling the host what it cannot see: which runners this process calls, and how often."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from runtimes.errors import RuntimeFault

INTERVAL_SECONDS = 0.25

Runner = tuple[str, int]  # key and generation


class Host(Protocol):
    """Whoever takes the reports."""

    def ask(self, request: Mapping[str, Any], fds: Sequence[int] = (), timeout_s: float = 30.0) -> dict[str, Any]:
        """Send one request."""


class Reporter:
    """Counts calls by runner; one thread a process sends the counts, started with the first call."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._calls: dict[Runner, int] = {}
        self._in_flight: dict[Runner, int] = {}
        self._used_at: dict[Runner, float] = {}
        self._has_news = threading.Event()
        self._pid = 0

    @contextmanager
    def calling(self, key: str, generation: int) -> Iterator[None]:
        """Count one call, in flight until the block ends."""
        runner = (key, generation)
        with self._lock:
            self._in_flight[runner] = self._in_flight.get(runner, 0) + 1
        self._wake()
        try:
            yield
        finally:
            with self._lock:
                self._calls[runner] = self._calls.get(runner, 0) + 1
                self._in_flight[runner] -= 1
                self._used_at[runner] = time.monotonic()

    def _wake(self) -> None:
        if self._pid != os.getpid():  # first call of the process; a fork has no thread of its own yet
            with self._lock:
                if self._pid != os.getpid():
                    self._pid = os.getpid()
                    threading.Thread(target=self._run, name="runner-reports", daemon=True).start()
        if not self._has_news.is_set():
            self._has_news.set()

    def _run(self) -> None:
        while True:
            self._has_news.wait()
            time.sleep(INTERVAL_SECONDS)
            self._has_news.clear()
            news = self._take()
            try:
                self._host.ask({"op": "report", "used": news}, timeout_s=5.0)
            except RuntimeFault:
                continue  # a host that restarts knows none of these runners

    def _take(self) -> list[list[Any]]:
        with self._lock:
            calls, self._calls = self._calls, {}
            busy = {runner: count for runner, count in self._in_flight.items() if count > 0}
            self._in_flight = dict(busy)
            used_at, self._used_at = self._used_at, {}
        if busy:
            self._has_news.set()
        now = time.monotonic()
        return [
            [*runner, calls.get(runner, 0), busy.get(runner, 0), used_at.get(runner, now)]
            for runner in calls.keys() | busy.keys()
        ]
