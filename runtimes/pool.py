"""The machine's pool: which model versions are resident, their measured bytes, and which one goes next."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from runtimes.errors import ArtifactRejected, DeadlineExceeded, PoolFull, RuntimeFault
from runtimes.residents import Counters, Resident

FAILURE_SECONDS = 15.0
WAIT_SECONDS = 300.0


class TooLarge(PoolFull):
    """A version alone takes more than it may ever have; no eviction makes room for it."""


class Pool:
    """Resident versions within a bound of measured bytes, least recently used first out.

    A key is absent, loading (one caller has the duty), resident in one runner or several, or remembered as failed for a
    short while. A runner that is retired takes no new client, keeps its room, and ends when it is idle.
    """

    def __init__(
        self, *, memory_bytes: int, tenant_bytes: int, max_runners: int, release: Callable[[Sequence[Resident]], None]
    ) -> None:
        self.memory_bytes, self.tenant_bytes, self.max_runners = memory_bytes, tenant_bytes, max_runners
        self.counters = Counters()
        self.pinned: set[str] = set()
        self._release = release
        self._changed = threading.Condition()
        self._residents: dict[str, list[Resident]] = {}  # the first runner of a version is its oldest
        self._retired: list[Resident] = []
        self._loading: set[str] = set()
        self._failures: dict[str, tuple[RuntimeFault, float]] = {}

    def lease(self, key: str, wait_s: float | None = None) -> tuple[Resident, ...]:
        """The version's runners, or none when the caller now has the duty to load it.

        Blocks while another caller loads it. Whoever gets none must call `admit`, `fail` or `abandon`.

        Raises:
            DeadlineExceeded: another caller was still loading it after `wait_s`.
            RuntimeFault: it failed to load a moment ago, for this reason.
        """
        give_up = time.monotonic() + (WAIT_SECONDS if wait_s is None else wait_s)
        missed = False
        with self._changed:
            while True:
                residents = self._alive(key)
                if residents:
                    self.counters.hits += not missed
                    self.touch(key)
                    return residents
                self.counters.misses += not missed
                missed = True
                self._raise_remembered(key)
                if key not in self._loading:
                    self._loading.add(key)
                    return ()
                if not self._changed.wait(give_up - time.monotonic()):
                    kind = PoolFull if wait_s is None else DeadlineExceeded
                    raise kind("Another caller has been loading this model for too long.")

    def admit(self, resident: Resident, *, seconds: float) -> None:
        """Make a freshly loaded version resident, evicting others as the bounds need; seconds: what loading took.

        Raises:
            PoolFull: there is no room even so; the version is not resident, and the caller has its duty still.
        """
        resident.private_bytes = resident.child.private_bytes()
        self._check_size(resident)
        with self._changed:
            evicted = self._make_room(resident)
            self._retire(self._residents.pop(resident.key, []))
            self._add(resident, seconds)
            self._loading.discard(resident.key)
            self._changed.notify_all()
        self._evict(evicted)

    def admit_copy(self, resident: Resident, *, seconds: float) -> None:
        """Make a further runner of a resident version resident, where there is room without evicting anybody.

        Raises:
            PoolFull: there is none, or the version has left meanwhile.
        """
        resident.private_bytes = resident.child.private_bytes()
        with self._changed:
            if not self._alive(resident.key):
                raise PoolFull("The version is not resident any more.")
            self._check_room(resident)
            self._add(resident, seconds)
            self.counters.copies += 1

    def open_for_copy(self, resident: Resident) -> int:
        """A descriptor of a resident version's bundle, for a further runner of it; the taker closes it.

        Raises:
            PoolFull: there is no free room for one, or the version has left.
        """
        with self._changed:
            if not self._alive(resident.key):
                raise PoolFull("The version is not resident any more.")
            self._check_room(resident)
            return os.dup(resident.bundle_fd)

    def fail(self, key: str, fault: RuntimeFault) -> None:
        """End the duty to load with a failure; one that will come again is remembered for a short while."""
        with self._changed:
            self._loading.discard(key)
            self.counters.failed_loads += 1
            if isinstance(fault, ArtifactRejected | TooLarge):
                self._failures[key] = (fault, time.monotonic() + FAILURE_SECONDS)
            self._changed.notify_all()

    def abandon(self, key: str) -> None:
        """Pass the duty to load on to whoever waits."""
        with self._changed:
            self._loading.discard(key)
            self._changed.notify_all()

    def evict(self, key: str) -> bool:
        """Whether the version was resident; its runners are gone now, pinned or not, and a remembered failure, too."""
        with self._changed:
            self._failures.pop(key, None)
            residents = self._residents.pop(key, [])
        self._evict(residents)
        return bool(residents)

    def end(self, resident: Resident) -> bool:
        """Whether this very runner was still there; it is gone now."""
        with self._changed:
            is_there = self._take_out(resident)
        self._evict([resident] if is_there else [])
        return is_there

    def clear(self) -> int:
        """How many versions were resident; none is any more."""
        with self._changed:
            self._failures.clear()
            cleared, self._residents = self._residents, {}
            retired, self._retired = self._retired, []
        self._evict([*(one for runners in cleared.values() for one in runners), *retired])
        return len(cleared)

    def drain(self, key: str) -> bool:
        """Whether the version was resident; its runners take no new client and end once nobody uses them."""
        with self._changed:
            self._failures.pop(key, None)
            residents = self._residents.pop(key, [])
            self._retire(residents)
        return bool(residents)

    def retire(self, resident: Resident) -> None:
        """Let one of a version's several runners take no new client, and end once nobody uses it."""
        with self._changed:
            if len(self._residents.get(resident.key, ())) > 1 and self._take_out(resident):
                self._retire([resident])

    def end_retired(self, is_over: Callable[[Resident], bool]) -> None:
        """End those of the retired runners whose time has come."""
        with self._changed:
            ending = [resident for resident in self._retired if resident.child.has_ended() or is_over(resident)]
            self._retired = [resident for resident in self._retired if resident not in ending]
            self.counters.retired += len(ending)
        self._release(ending)

    def find(self, key: str) -> tuple[Resident, ...]:
        """The version's runners that live."""
        with self._changed:
            return self._alive(key)

    def touch(self, key: str) -> bool:
        """Whether the version is resident; it counts as just used."""
        with self._changed:
            residents = self._alive(key)
            for resident in residents:
                resident.used_at = time.monotonic()
            return bool(residents)

    def runner(self, key: str, generation: int) -> Resident | None:
        """One runner of the version, retired or not, if it lives."""
        with self._changed:
            everyone = [*self._alive(key), *self._retired]
            return next((resident for resident in everyone if resident.generation == generation), None)

    def report(
        self, reporter: Hashable, key: str, generation: int, calls: int, in_flight: int, seconds: float, used_at: float
    ) -> None:
        """Note what a client did with a runner since it last said so; used_at is of this machine's monotonic clock."""
        with self._changed:
            resident = self.runner(key, generation)
            if resident is None:
                return
            resident.traffic.report(reporter, calls, in_flight, seconds)
            resident.reported_at = time.monotonic()
            used_at = min(used_at, resident.reported_at)
            resident.used_at = max(resident.used_at, used_at)
            if calls:
                resident.answered_at = max(resident.answered_at, used_at)

    def forget(self, reporter: Hashable) -> None:
        """Count no open call of a client that has gone away."""
        with self._changed:
            for resident in self._everyone():
                resident.traffic.report(reporter, 0, 0, 0.0)

    def residents(self) -> list[Resident]:
        """Every runner, the one that goes next first."""
        with self._changed:
            return [*self._retired, *self._by_use()]

    def versions(self) -> dict[str, tuple[Resident, ...]]:
        """Every resident version's runners, the oldest first."""
        with self._changed:
            return {key: tuple(runners) for key, runners in self._residents.items()}

    def remeasure(self) -> None:
        """Read the memory of the runners that have worked since, drop the dead, and evict what no longer fits."""
        for resident in self.residents():
            cpu_seconds = resident.child.cpu_seconds()
            if cpu_seconds != resident.measured_cpu_seconds:  # who did not run has no more memory than before
                resident.private_bytes = resident.child.private_bytes()
                resident.measured_cpu_seconds = cpu_seconds
        with self._changed:
            for key in list(self._residents):
                self._alive(key)
            try:
                evicted = self._make_room(None)
            except PoolFull:  # everything is pinned: an operator wanted it so
                return
        self._evict(evicted)

    def _alive(self, key: str) -> tuple[Resident, ...]:
        residents = self._residents.get(key, [])
        for resident in [resident for resident in residents if resident.child.has_ended()]:
            self._take_out(resident)
            self.counters.deaths += 1
            self._release([resident])
        return tuple(self._residents.get(key, ()))

    def _add(self, resident: Resident, seconds: float) -> None:
        self._residents.setdefault(resident.key, []).append(resident)
        self.counters.loads += 1
        self.counters.load_seconds += seconds
        self.counters.loaded_bytes += resident.private_bytes

    def _take_out(self, resident: Resident) -> bool:
        """Whether the runner was there; it is not counted any more, and its version is absent if it was the last."""
        runners = self._residents.get(resident.key, [])
        place = runners if resident in runners else self._retired
        if resident not in place:
            return False
        place.remove(resident)
        if not runners:
            self._residents.pop(resident.key, None)
        return True

    def _retire(self, residents: Sequence[Resident]) -> None:
        for resident in residents:
            resident.retired_at = time.monotonic()
        self._retired += residents

    def _check_size(self, resident: Resident) -> None:
        if resident.private_bytes > self.tenant_bytes:
            raise TooLarge("The model alone is larger than the tenant's share of the pool.")
        if resident.private_bytes > self.memory_bytes:
            raise TooLarge("The model alone is larger than the pool.")

    def _check_room(self, copy: Resident) -> None:
        everyone = self._everyone()
        own = [resident for resident in everyone if resident.tenant == copy.tenant]
        is_over = (
            _sum(own) + copy.private_bytes > self.tenant_bytes
            or _sum(everyone) + copy.private_bytes > self.memory_bytes
            or len(everyone) >= self.max_runners
        )
        if is_over:
            raise PoolFull("There is no free room for a further runner.")

    def _raise_remembered(self, key: str) -> None:
        fault, until = self._failures.get(key, (None, 0.0))
        if fault is None:
            return
        if time.monotonic() < until:
            raise fault
        del self._failures[key]

    def _make_room(self, newcomer: Resident | None) -> list[Resident]:
        """The runners to evict, already taken out, so that the newcomer fits; none is taken when it cannot."""
        everyone = [*self._everyone(), *([newcomer] if newcomer else [])]
        tenants = Counter[str]()
        for resident in everyone:
            tenants[resident.tenant] += resident.private_bytes
        rest, victims = self._candidates(), list[Resident]()
        for tenant, used_bytes in tenants.items():
            if used_bytes > self.tenant_bytes:
                own = [resident for resident in rest if resident.tenant == tenant]
                victims += _oldest(own, used_bytes - self.tenant_bytes, "The tenant has its share of the pool.")
        rest = [resident for resident in rest if resident not in victims]
        excess = _sum(everyone) - _sum(victims) - self.memory_bytes
        victims += _oldest(rest, excess, "Every model in the pool is pinned.")
        rest = [resident for resident in rest if resident not in victims]
        victims += rest[: max(len(everyone) - len(victims) - self.max_runners, 0)]
        for victim in victims:
            self._take_out(victim)
        return victims

    def _candidates(self) -> list[Resident]:
        """Who may be evicted, in order: the retired, further runners of a version, and whole versions not pinned."""
        copies = [runner for runners in self._residents.values() for runner in runners[1:]]
        firsts = [runners[0] for key, runners in self._residents.items() if key not in self.pinned]
        return [*self._retired, *sorted(copies, key=_use), *sorted(firsts, key=_use)]

    def _everyone(self) -> list[Resident]:
        return [*(runner for runners in self._residents.values() for runner in runners), *self._retired]

    def _by_use(self) -> list[Resident]:
        return sorted((runner for runners in self._residents.values() for runner in runners), key=_use)

    def _evict(self, residents: list[Resident]) -> None:
        """End runners that are taken out already; without the lock, for an end takes milliseconds."""
        with self._changed:
            self.counters.evictions += len(residents)
            self.counters.evicted_bytes += _sum(residents)
        self._release(residents)


def _use(resident: Resident) -> float:
    return resident.used_at


def _sum(residents: Sequence[Resident]) -> int:
    return sum(resident.private_bytes for resident in residents)


def _oldest(candidates: list[Resident], excess_bytes: int, complaint: str) -> list[Resident]:
    """The first candidates that together free the excess.

    Raises:
        PoolFull: all of them together do not.
    """
    chosen: list[Resident] = []
    for candidate in candidates:
        if excess_bytes <= 0:
            break
        chosen.append(candidate)
        excess_bytes -= candidate.private_bytes
    if excess_bytes > 0:
        raise PoolFull(complaint)
    return chosen
