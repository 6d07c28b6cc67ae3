"""Telling the host what it cannot see: which runners this process calls, how often, and for how long calls wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from runtimes.errors import RuntimeFault

INTERVAL_SECONDS = 0.25
ANSWER_SECONDS = 5.0

News = Mapping[str, Mapping[str, Any] | None]


class Conversation(Protocol):
    """A connection to the host."""

    def ask(self, request: Mapping[str, Any], fds: Sequence[int] = (), timeout_s: float = 30.0) -> dict[str, Any]: ...
    def __exit__(self, *exc_info: object) -> None: ...


class Client(Protocol):
    """Whoever knows ways to runners, and hears which there are now."""

    def converse(self) -> Conversation: ...
    def known_ways(self, key: str) -> Sequence[int]: ...
    def learn(self, news: News) -> None: ...


class Tally:
    """What one thread did with one runner. Its thread alone writes, and nobody needs a lock.

    seconds: of the calls that have ended. last_seconds: of the last of them. started_at: of the call in flight, 0 when
    there is none.
    """

    __slots__ = ("_wake", "calls", "generation", "is_open", "key", "last_seconds", "seconds", "started_at", "used_at")

    def __init__(self, key: str, generation: int, wake: Callable[[], None]) -> None:
        self.key, self.generation, self._wake = key, generation, wake
        self.calls, self.seconds, self.started_at, self.used_at = 0, 0.0, 0.0, 0.0
        self.last_seconds = 0.0
        self.is_open = True

    def begin(self) -> None:
        """Count a call in flight from now on."""
        self.started_at = time.monotonic()
        self._wake()

    def end(self, calls: int) -> None:
        """Count calls that have just ended."""
        self.used_at = now = time.monotonic()
        self.calls += calls
        self.last_seconds = now - self.started_at
        self.seconds += self.last_seconds
        self.started_at = 0.0

    def spent_seconds(self, now: float) -> float:
        """The time spent in calls until now; first what has ended, so that no call counts twice."""
        seconds, started_at = self.seconds, self.started_at
        return seconds + (now - started_at if started_at else 0.0)


@dataclass
class Usage:
    """What this process did with one runner since it last said so."""

    calls: int = 0
    in_flight: int = 0
    seconds: float = 0.0
    used_at: float = 0.0


class Reporter:
    """Sums up the tallies of all threads; one thread a process sends the sums, started with the first call."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._said: dict[Tally, tuple[int, float]] = {}  # calls and seconds that the host knows of
        self._has_news = threading.Event()
        self._is_awake = False
        self._thread: threading.Thread | None = None
        self._host: Conversation | None = None

    def tally(self, key: str, generation: int) -> Tally:
        """A tally for one thread and runner, reported until it is closed."""
        tally = Tally(key, generation, self._wake)
        with self._lock:
            self._said[tally] = 0, 0.0
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="runner-reports", daemon=True)
                self._thread.start()
        return tally

    def _wake(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self._has_news.set()

    def _run(self) -> None:
        while True:
            self._has_news.wait()
            time.sleep(INTERVAL_SECONDS)
            self._has_news.clear()
            used = self._take()
            if used:
                self._has_news.set()
                self._send(used)
            else:
                self._rest()

    def _rest(self) -> None:
        """Sleep until the next call; one that began a moment ago is seen here, or sees that nobody is awake."""
        self._is_awake = False
        with self._lock:
            has_news = any(tally.started_at or tally.calls > calls for tally, (calls, _) in self._said.items())
        if has_news:
            self._wake()

    def _take(self) -> dict[tuple[str, int], Usage]:
        now = time.monotonic()
        used: dict[tuple[str, int], Usage] = {}
        with self._lock:
            said = list(self._said.items())
        for tally, (calls_said, seconds_said) in said:
            is_closed, calls, seconds = not tally.is_open, tally.calls, tally.spent_seconds(now)
            if calls > calls_said or tally.started_at:
                usage = used.setdefault((tally.key, tally.generation), Usage())
                usage.calls += calls - calls_said
                usage.in_flight += tally.started_at > 0.0
                usage.seconds += max(seconds - seconds_said, 0.0)
                usage.used_at = max(usage.used_at, tally.used_at)
            with self._lock:
                self._said[tally] = calls, seconds
                if is_closed:
                    del self._said[tally]
        return used

    def _send(self, used: Mapping[tuple[str, int], Usage]) -> None:
        rows = [[*runner, one.calls, one.in_flight, one.seconds, one.used_at] for runner, one in used.items()]
        known = {key: list(self._client.known_ways(key)) for key, _ in used}
        try:
            if self._host is None:
                self._host = self._client.converse()
            answer = self._host.ask({"op": "report", "used": rows, "known": known}, timeout_s=ANSWER_SECONDS)
        except RuntimeFault:  # a host that restarts knows none of these runners
            self._hang_up()
        else:
            self._client.learn(answer.get("ways") or {})

    def _hang_up(self) -> None:
        if self._host is not None:
            self._host.__exit__()
            self._host = None
