"""One thread's connections to the runners of one version, and which of them is next."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Protocol

from runtimes.asking import RunnerConnection, Way
from runtimes.conversation import CONNECT_SECONDS, left
from runtimes.reporting import Tally

Ways = tuple[Way, ...]
_starts = itertools.count()  # threads begin at different runners


class Complain(Protocol):
    """Whoever takes complaints about runners."""

    def __call__(self, key: str, way: Way, *, is_protocol_fault: bool, waited_seconds: float) -> None: ...


class Line:
    """One thread's connections to the runners of one version, taken in turn."""

    def __init__(self, key: str, tally: Callable[[str, int], Tally], complain: Complain) -> None:
        self._key, self._tally, self._complain = key, tally, complain
        self._ways: Ways = ()
        self._connections: dict[int, RunnerConnection] = {}
        self._turn = next(_starts)

    def choose(self, ways: Ways) -> Way:
        """The runner whose turn it is; connections to those that are not among these ways are closed."""
        if ways is not self._ways:
            self._follow(ways)
        if len(ways) == 1:
            return ways[0]
        self._turn += 1
        return ways[self._turn % len(ways)]

    def connection(self, way: Way, deadline: float) -> RunnerConnection:
        """The connection to a runner, opened when there is none.

        Raises:
            EndOfStream: nobody listens there. DeadlineExceeded: there is no time left.
        """
        known = self._connections.get(way.generation)
        if known is None:
            timeout_s = left(deadline, CONNECT_SECONDS)
            tally = self._tally(self._key, way.generation)
            known = RunnerConnection(self._key, way, timeout_s, tally, self._report_silence)
            self._connections[way.generation] = known
        return known

    def drop(self, way: Way) -> None:
        """Close the connection to a runner, if there is one."""
        connection = self._connections.pop(way.generation, None)
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close every connection."""
        self._follow(())

    def _follow(self, ways: Ways) -> None:
        kept = {way.generation for way in ways}
        for generation in self._connections.keys() - kept:
            self._connections.pop(generation).close()
        self._ways = ways

    def _report_silence(self, way: Way, waited_seconds: float) -> None:
        self._complain(self._key, way, is_protocol_fault=False, waited_seconds=waited_seconds)
