"""The machine's pool: which model versions are resident, their measured bytes, and which one goes next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from runtimes.children import Child
from runtimes.errors import ArtifactRejected, DeadlineExceeded, PoolFull, RuntimeFault
from runtimes.limits import Limits

FAILURE_SECONDS = 15.0
WAIT_SECONDS = 300.0


class TooLarge(PoolFull):
    """A version alone takes more than it may ever have; no eviction makes room for it."""


@dataclass
class Resident:
    """One loaded version in its runner."""

    key: str
    tenant: str
    generation: int
    path: str
    child: Child
    limits: Limits
    private_bytes: int = 0
    calls: int = 0
    in_flight: int = 0
    loaded_at: float = field(default_factory=time.time)
    used_at: float = field(default_factory=time.monotonic)
    reported_at: float = field(default_factory=time.monotonic)
    cpu_seconds: float = 0.0
    idle_cpu_seconds: float = 0.0
    control_lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Counters:
    """What the pool has done since the host started."""

    hits: int = 0
    misses: int = 0
    loads: int = 0
    failed_loads: int = 0
    evictions: int = 0
    deaths: int = 0
    kills: int = 0
    load_seconds: float = 0.0


class Pool:
    """Resident versions within a bound of measured bytes, least recently used first out.

    A key is absent, loading (one caller has the duty), resident, or remembered as failed for a short while.
    """

    def __init__(
        self, *, memory_bytes: int, tenant_bytes: int, max_runners: int, release: Callable[[Resident], None]
    ) -> None:
        self.memory_bytes, self.tenant_bytes, self.max_runners = memory_bytes, tenant_bytes, max_runners
        self.counters = Counters()
        self.pinned: set[str] = set()
        self._release = release
        self._changed = threading.Condition()
        self._residents: dict[str, Resident] = {}
        self._loading: set[str] = set()
        self._failures: dict[str, tuple[RuntimeFault, float]] = {}

    def lease(self, key: str, wait_s: float | None = None) -> Resident | None:
        """The resident version, or None when the caller now has the duty to load it.

        Blocks while another caller loads it. Whoever gets None must call `admit`, `fail` or `abandon`.

        Raises:
            DeadlineExceeded: another caller was still loading it after `wait_s`.
            RuntimeFault: it failed to load a moment ago, for this reason.
        """
        give_up = time.monotonic() + (WAIT_SECONDS if wait_s is None else wait_s)
        missed = False
        with self._changed:
            while True:
                resident = self._alive(key)
                if resident is not None:
                    self.counters.hits += not missed
                    resident.used_at = time.monotonic()
                    return resident
                self.counters.misses += not missed
                missed = True
                self._raise_remembered(key)
                if key not in self._loading:
                    self._loading.add(key)
                    return None
                if not self._changed.wait(give_up - time.monotonic()):
                    kind = PoolFull if wait_s is None else DeadlineExceeded
                    raise kind("Another caller has been loading this model for too long.")

    def admit(self, resident: Resident) -> None:
        """Make a freshly loaded version resident, evicting others as the bounds need.

        Raises:
            PoolFull: there is no room even so; the version is not resident, and the caller has its duty still.
        """
        resident.private_bytes = resident.child.private_bytes()
        self._check_size(resident)
        with self._changed:
            replaced = self._residents.pop(resident.key, None)
            evicted = [] if replaced is None else [replaced]
            try:
                evicted += self._make_room(resident)
                self._residents[resident.key] = resident
                self.counters.loads += 1
                self._loading.discard(resident.key)
                self._changed.notify_all()
            finally:
                self._drop(evicted)

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

    def evict(self, key: str, generation: int | None = None) -> bool:
        """Whether the version was resident; it no longer is, pinned or not. Its remembered failure goes too."""
        with self._changed:
            self._failures.pop(key, None)
            resident = self._residents.get(key)
            if resident is None or (generation is not None and resident.generation != generation):
                return False
            del self._residents[key]
            self._drop([resident])
            return True

    def clear(self) -> int:
        """How many versions were resident; none is any more."""
        keys = [resident.key for resident in self.residents()]
        self._failures.clear()
        return sum(self.evict(key) for key in keys)

    def find(self, key: str) -> Resident | None:
        """The resident version, if its runner lives."""
        with self._changed:
            return self._alive(key)

    def residents(self) -> list[Resident]:
        """Every resident version, the one that goes next first."""
        with self._changed:
            return self._by_use()

    def report(self, key: str, generation: int, calls: int, in_flight: int, used_at: float) -> None:
        """Note what a client did with a version since it last said so; used_at is of this machine's monotonic clock."""
        with self._changed:
            resident = self._residents.get(key)
            if resident is None or resident.generation != generation:
                return
            resident.calls += calls
            resident.in_flight = in_flight
            resident.reported_at = time.monotonic()
            resident.used_at = max(resident.used_at, min(used_at, resident.reported_at))

    def remeasure(self) -> None:
        """Read every runner's memory again, drop the dead, and evict what no longer fits."""
        for resident in self.residents():
            resident.private_bytes = resident.child.private_bytes()
        with self._changed:
            for key in list(self._residents):
                self._alive(key)
            try:
                evicted = self._make_room(None)
            except PoolFull:  # everything is pinned: an operator wanted it so
                return
            self._drop(evicted)

    def _alive(self, key: str) -> Resident | None:
        resident = self._residents.get(key)
        if resident is None or not resident.child.has_ended():
            return resident
        del self._residents[key]
        self.counters.deaths += 1
        self._release(resident)
        return None

    def _check_size(self, resident: Resident) -> None:
        if resident.private_bytes > self.tenant_bytes:
            raise TooLarge("The model alone is larger than the tenant's share of the pool.")
        if resident.private_bytes > self.memory_bytes:
            raise TooLarge("The model alone is larger than the pool.")

    def _raise_remembered(self, key: str) -> None:
        fault, until = self._failures.get(key, (None, 0.0))
        if fault is None:
            return
        if time.monotonic() < until:
            raise fault
        del self._failures[key]

    def _make_room(self, newcomer: Resident | None) -> list[Resident]:
        """The versions to evict, already taken out, so that the newcomer fits; none is taken when it cannot."""
        victims: list[Resident] = []
        candidates = [resident for resident in self._by_use() if resident.key not in self.pinned]
        everyone = [*self._residents.values(), *([newcomer] if newcomer else [])]
        for tenant in {resident.tenant for resident in everyone}:
            own = [resident for resident in everyone if resident.tenant == tenant]
            choice = [resident for resident in candidates if resident.tenant == tenant]
            victims += _oldest(choice, _sum(own) - self.tenant_bytes, "The tenant has its share of the pool.")
        rest = [resident for resident in candidates if resident not in victims]
        excess = _sum(everyone) - _sum(victims) - self.memory_bytes
        victims += _oldest(rest, excess, "Every model in the pool is pinned.")
        rest = [resident for resident in rest if resident not in victims]
        surplus = len(everyone) - len(victims) - self.max_runners
        victims += rest[: max(surplus, 0)]
        for victim in victims:
            del self._residents[victim.key]
        return victims

    def _by_use(self) -> list[Resident]:
        return sorted(self._residents.values(), key=lambda resident: resident.used_at)

    def _drop(self, residents: list[Resident]) -> None:
        self.counters.evictions += len(residents)
        for resident in residents:
            self._release(resident)


def _sum(residents: list[Resident]) -> int:
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
