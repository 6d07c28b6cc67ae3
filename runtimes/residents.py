"""A runner as the pool knows it, and what the pool counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runtimes.children import Child
from runtimes.demand import Look, Traffic
from runtimes.limits import Limits


@dataclass(eq=False)
class Resident:
    """One runner that holds a version.

    order, bundle_fd: what loaded it, for loading a further one; the descriptor is the runner's to close.
    used_at, reported_at, answered_at: when it was last leased or called, reported on, and known to have answered.
    """

    key: str
    tenant: str
    generation: int
    path: str
    child: Child
    limits: Limits
    order: Mapping[str, Any]
    bundle_fd: int
    private_bytes: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    loaded_at: float = field(default_factory=time.time)
    used_at: float = field(default_factory=time.monotonic)
    reported_at: float = field(default_factory=time.monotonic)
    answered_at: float = field(default_factory=time.monotonic)
    retired_at: float = 0.0
    looked: Look | None = None
    measured_cpu_seconds: float = 0.0
    cpu_seconds: float = 0.0
    idle_cpu_seconds: float = 0.0
    control_lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def in_flight(self) -> int:
        """How many calls are open, as far as clients have said."""
        return self.traffic.open_calls


@dataclass
class Counters:
    """What the pool has done since the host started.

    loads, load_seconds, loaded_bytes: of versions and of further runners (copies) of a busy one.
    retired: runners that were ended once nobody used them. evictions, evicted_bytes: those ended for their room, or
    because a client said so. deaths: those that ended by themselves. kills: those that did what they must not.
    """

    hits: int = 0
    misses: int = 0
    loads: int = 0
    copies: int = 0
    failed_loads: int = 0
    evictions: int = 0
    retired: int = 0
    deaths: int = 0
    kills: int = 0
    load_seconds: float = 0.0
    loaded_bytes: int = 0
    evicted_bytes: int = 0
