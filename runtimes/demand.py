"""How much is asked of a version's runners: whether one more would help, or one less would do."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

BUSY = 0.7  # of a core
WAITING = 1.0  # requests in a runner besides the one that it works on
HOT_LOOKS = 2
COOL = 0.5  # of what the runners that stay could do
COOL_LOOKS = 5


@dataclass
class Traffic:
    """What clients said about one runner.

    in_flight: calls that were open when each client last reported. seconds: what clients spent in calls; in a second of
    time, as many as there were calls in the runner at a time.
    """

    calls: int = 0
    seconds: float = 0.0
    in_flight: dict[Hashable, int] = field(default_factory=dict)

    @property
    def open_calls(self) -> int:
        """How many calls are open now, as far as clients have said."""
        return sum(self.in_flight.values())

    def report(self, reporter: Hashable, calls: int, in_flight: int, seconds: float) -> None:
        """Add what a client did since its last report."""
        self.calls += max(calls, 0)
        self.seconds += max(seconds, 0.0)
        if in_flight > 0:
            self.in_flight[reporter] = in_flight
        else:
            self.in_flight.pop(reporter, None)


class Look(NamedTuple):
    """What was counted of a runner by a moment."""

    time: float
    wanted_seconds: float
    spent_seconds: float


@dataclass(frozen=True)
class Load:
    """One runner between two looks. busy: the part of the time in which it wanted a core. calls: how many were in it at
    a time, on average."""

    busy: float
    calls: float

    @property
    def waiting(self) -> float:
        """How many calls waited at a time, on average."""
        return max(self.calls - self.busy, 0.0)


@dataclass
class Demand:
    """The last looks at one version's runners."""

    hot_looks: int = 0
    cool_looks: int = 0

    def look(self, loads: Sequence[Load]) -> int:
        """1 when one more runner would help, -1 when one less would do, else 0; after an answer it begins anew."""
        is_hot = all(load.busy >= BUSY for load in loads) and sum(load.waiting for load in loads) >= WAITING * len(
            loads
        )
        is_cool = sum(load.busy for load in loads) <= COOL * (len(loads) - 1)
        self.hot_looks = self.hot_looks + 1 if is_hot else 0
        self.cool_looks = self.cool_looks + 1 if is_cool else 0
        if self.hot_looks < HOT_LOOKS and (len(loads) < 2 or self.cool_looks < COOL_LOOKS):
            return 0
        answer = 1 if is_hot else -1
        self.hot_looks = self.cool_looks = 0
        return answer
