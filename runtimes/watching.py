"""What the model host does once a second: measure, end what must end, and give a busy version another runner."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from runtimes.demand import Demand, Load, Look
from runtimes.errors import PoolFull, RuntimeFault
from runtimes.pool import Pool
from runtimes.residents import Resident

REPORT_GRACE_SECONDS = 2.0
IDLE_CPU_SECONDS = 2.0
RETIRING_SECONDS = 1.0  # by then every client that uses a runner has heard that it is retired
COPY_AGAIN_SECONDS = 60.0
log = logging.getLogger("runtimes.host")


class Machine(Protocol):
    """Whoever loads runners."""

    @property
    def pool(self) -> Pool: ...
    def load_copy(self, original: Resident) -> None: ...


class Watch:
    """Looks at every runner, again and again. max_copies: how many runners a version may have at most."""

    def __init__(self, machine: Machine, max_copies: int) -> None:
        self._machine, self._max_copies = machine, max_copies
        self._demands: defaultdict[str, Demand] = defaultdict(Demand)
        self._copying: set[str] = set()
        self._not_before: dict[str, float] = {}

    def look(self) -> None:
        """Look at every runner once."""
        pool = self._machine.pool
        pool.remeasure()
        for resident in pool.residents():
            if _is_idle_worker(resident) and pool.end(resident):
                pool.counters.kills += 1
                log.warning("runner killed key=%s tenant=%s reason=%s", resident.key, resident.tenant, "idle cpu")
        pool.end_retired(_is_done)
        versions = pool.versions()
        for key, runners in versions.items():
            self._match_demand(key, runners)
        for known in (self._demands, self._not_before):
            for key in known.keys() - versions.keys():
                del known[key]

    def _match_demand(self, key: str, runners: Sequence[Resident]) -> None:
        loads = [_load_of(resident) for resident in runners]
        if len(runners) == 1 and not loads[0].calls:
            self._demands.pop(key, None)
            return
        answer = self._demands[key].look(loads)
        if answer > 0 and len(runners) < self._max_copies:
            self._start_copy(runners[0])
        elif answer < 0:
            self._machine.pool.retire(runners[-1])
            log.info("runner retired key=%s tenant=%s left=%d", key, runners[0].tenant, len(runners) - 1)

    def _start_copy(self, original: Resident) -> None:
        key = original.key
        if key not in self._copying and time.monotonic() >= self._not_before.get(key, 0.0):
            self._copying.add(key)
            threading.Thread(target=lambda: self._copy(original), name="copy", daemon=True).start()

    def _copy(self, original: Resident) -> None:
        try:
            self._machine.load_copy(original)
            log.info("runner added key=%s tenant=%s", original.key, original.tenant)
        except PoolFull:
            pass  # it has no free room, or the version has left
        except (RuntimeFault, OSError) as fault:
            self._not_before[original.key] = time.monotonic() + COPY_AGAIN_SECONDS
            log.warning("runner not added key=%s reason=%s", original.key, fault)
        finally:
            self._copying.discard(original.key)


def _is_done(resident: Resident) -> bool:
    """Whether a retired runner may end: nobody uses it, or a call in it takes longer than any may."""
    seconds = time.monotonic() - resident.retired_at
    is_idle = resident.in_flight == 0 and seconds > RETIRING_SECONDS
    return is_idle or seconds > RETIRING_SECONDS + resident.limits.call_seconds


def _is_idle_worker(resident: Resident) -> bool:
    used_seconds = resident.child.cpu_seconds() - resident.cpu_seconds
    resident.cpu_seconds += used_seconds
    is_asked = resident.in_flight > 0 or time.monotonic() - resident.reported_at < REPORT_GRACE_SECONDS
    resident.idle_cpu_seconds = 0.0 if is_asked else resident.idle_cpu_seconds + used_seconds
    return resident.idle_cpu_seconds > IDLE_CPU_SECONDS


def _load_of(resident: Resident) -> Load:
    """A runner's load since the last look; none while nobody asks it anything."""
    before, now = resident.looked, time.monotonic()
    spent_seconds = resident.traffic.seconds
    if before is not None and before.spent_seconds == spent_seconds:
        resident.looked = None
        return Load(0.0, 0.0)
    resident.looked = Look(now, resident.child.wanted_seconds(), spent_seconds)
    if before is None:
        return Load(0.0, 0.0)
    seconds = now - before.time
    busy = (resident.looked.wanted_seconds - before.wanted_seconds) / seconds
    return Load(busy, (spent_seconds - before.spent_seconds) / seconds)
