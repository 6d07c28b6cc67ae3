"""A tenant's predictions over time, for its own pages: the last hour by the minute, the last week by the hour, and each
model's by the day, with the moment when it was asked last.

Written when the sums are (`inference.counting`), so that a prediction costs nothing more for it, and counted for the
moment when they are: some seconds after the predictions, or later where Valkey was away. Every slot of time is a hash
that goes by itself, so what is kept is bounded by the time.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

from inference.queued.valkey import valkey

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
MINUTE, HOUR, DAY = 60, 3600, 24 * 3600
KEPT_S = {MINUTE: 2 * HOUR, HOUR: 8 * DAY}
MODELS_KEPT_S = 9 * DAY
LAST_USED_KEPT_S = 90 * DAY


@dataclass(frozen=True)
class Span:
    """A time that ends now, as so many slots of so many seconds."""

    name: str
    slot_s: int
    slot_count: int


SPANS = {one.name: one for one in (Span("hour", MINUTE, 60), Span("day", HOUR, 24), Span("week", HOUR, 168))}


@dataclass
class Asked:
    """What was asked for. failed: those of the calls that got no prediction.

    buckets: the calls that were answered, by how long that took, as `BOUNDS_S` divides it.
    """

    calls: int = 0
    failed: int = 0
    rows: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))

    def add(self, other: "Asked") -> None:
        """Count the other's, too."""
        self.calls += other.calls
        self.failed += other.failed
        self.rows += other.rows
        self.buckets = [one + another for one, another in zip(self.buckets, other.buckets, strict=True)]

    def within_s(self, share: float) -> float | None:
        """How long this share of the answered calls took at most, about; None where none was answered."""
        answered = sum(self.buckets)
        if not answered:
            return None
        sums, wanted = list(accumulate(self.buckets)), share * answered
        place = next(place for place, total in enumerate(sums) if total >= wanted)
        low, high = (BOUNDS_S[place - 1] if place else 0.0), BOUNDS_S[min(place, len(BOUNDS_S) - 1)]
        before = sums[place - 1] if place else 0
        return low + (high - low) * (wanted - before) / self.buckets[place]


@dataclass(frozen=True)
class Slot:
    """What was asked for in one slot of time, which began then."""

    begin: datetime
    asked: Asked


def write(pipeline: Any, counted: Iterable[tuple[str, str, Asked]], now: float | None = None) -> None:
    """Add what was counted to the slots of this moment: a tenant's schema, a model's name and what was asked of it."""
    moment = time.time() if now is None else now
    tenants: dict[str, Asked] = {}
    for tenant, model, asked in counted:
        tenants.setdefault(tenant, Asked()).add(asked)
        _write_model(pipeline, tenant, model, asked, moment)
    for tenant, asked in tenants.items():
        for slot_s, kept_s in KEPT_S.items():
            key = _slot_key(tenant, slot_s, int(moment) // slot_s)
            for name, count in _fields(asked).items():
                pipeline.hincrby(key, name, count)
            pipeline.expire(key, kept_s)


def slots(tenant: str, span: Span, now: float | None = None) -> list[Slot]:
    """The span's slots, the oldest first, those without a prediction too. tenant: its schema."""
    last = int(time.time() if now is None else now) // span.slot_s
    numbers = range(last - span.slot_count + 1, last + 1)
    found = _hashes([_slot_key(tenant, span.slot_s, number) for number in numbers])
    return [
        Slot(datetime.fromtimestamp(number * span.slot_s, UTC), _asked(kept))
        for number, kept in zip(numbers, found, strict=True)
    ]


def total(found: Sequence[Slot]) -> Asked:
    """All slots' in one."""
    asked = Asked()
    for slot in found:
        asked.add(slot.asked)
    return asked


def by_model(tenant: str, days: int = 7, now: float | None = None) -> dict[str, Asked]:
    """What was asked of each model on the last days, today included; without how long it took."""
    last = int(time.time() if now is None else now) // DAY
    models: dict[str, Asked] = {}
    for kept in _hashes([_model_key(tenant, number) for number in range(last - days + 1, last + 1)]):
        for name, value in kept.items():
            model, _, what = name.decode().rpartition("|")
            asked = models.setdefault(model, Asked())
            setattr(asked, what, getattr(asked, what) + int(value))
    return models


def last_used(tenant: str, models: Sequence[str]) -> dict[str, datetime]:
    """When each of these models was asked last, of those that were lately."""
    if not models:
        return {}
    moments = valkey().hmget(_used_key(tenant), list(models))
    return {
        model: datetime.fromtimestamp(int(moment), UTC) for model, moment in zip(models, moments, strict=True) if moment
    }


def _write_model(pipeline: Any, tenant: str, model: str, asked: Asked, moment: float) -> None:
    key = _model_key(tenant, int(moment) // DAY)
    for what in ("calls", "failed", "rows"):
        if count := getattr(asked, what):
            pipeline.hincrby(key, f"{model}|{what}", count)
    pipeline.expire(key, MODELS_KEPT_S)
    pipeline.hset(_used_key(tenant), model, int(moment))
    pipeline.expire(_used_key(tenant), LAST_USED_KEPT_S)


def _fields(asked: Asked) -> dict[str, int]:
    named = {"calls": asked.calls, "failed": asked.failed, "rows": asked.rows}
    named |= {str(place): count for place, count in enumerate(asked.buckets)}
    return {name: count for name, count in named.items() if count}


def _asked(kept: Mapping[bytes, bytes]) -> Asked:
    asked = Asked()
    for name, value in kept.items():
        what = name.decode()
        if what.isdigit():
            asked.buckets[min(int(what), len(BOUNDS_S))] += int(value)
        else:
            setattr(asked, what, int(value))
    return asked


def _hashes(keys: Sequence[str]) -> list[dict[bytes, bytes]]:
    with valkey().pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hgetall(key)
        found: list[dict[bytes, bytes]] = pipeline.execute()
    return found


def _slot_key(tenant: str, slot_s: int, number: int) -> str:
    return f"tenantry:{tenant}:traffic:{slot_s}:{number}"


def _model_key(tenant: str, day: int) -> str:
    return f"tenantry:{tenant}:traffic-by-model:{day}"


def _used_key(tenant: str) -> str:
    return f"tenantry:{tenant}:models-used"
