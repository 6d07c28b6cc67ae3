"""How many predictions were asked for, how long they took and what became of them, for Prometheus and tenants' pages.

Each process counts in memory, so that a prediction costs a lock and an addition, and adds what it has counted to the
sums in Valkey every few seconds: whichever process is asked for the metrics tells those of all, on all machines.
A tenant's sums go a week after its last prediction; Prometheus takes a sum that begins anew for what it is.
"""

import os
import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from common.background import Background
from inference import traffic
from inference.queued.valkey import valkey
from tenants.models import Tenant
from tenants.scope import shared_scope

BUCKETS_S = traffic.BOUNDS_S
ADD_AFTER_S = 3.0
KEPT_S = 7 * 24 * 3600
MOST_COUNTED = 20_000  # series that wait for Valkey; with more, the oldest are given up
AT_ONCE = 500
OK = 200


class Series(NamedTuple):
    """What is counted apart. tenant: by its schema in the process and in Valkey, by its tenantId in the metrics.

    status: HTTP's; whatever a runner may say, there are few.
    """

    tenant: str
    model: str
    lane: str
    status: int


class Sums:
    """What was counted of a series."""

    __slots__ = ("buckets", "rows", "seconds")

    def __init__(self) -> None:
        self.rows, self.seconds = 0, 0.0
        self.buckets = [0] * (len(BUCKETS_S) + 1)


class Counts:
    """What this process has counted and Valkey does not have yet."""

    def __init__(self) -> None:
        self._adding = Background("counts", self.add_up, after_s=ADD_AFTER_S)
        self.begin()

    def begin(self) -> None:
        """Count from nothing: what a fork finds is its parent's to add up."""
        self._lock = threading.Lock()
        self._sums: dict[Series, Sums] = {}

    def note(self, series: Series, rows: int, seconds: float) -> None:
        """Count one prediction."""
        place = bisect_left(BUCKETS_S, seconds)
        with self._lock:
            is_first = not self._sums
            sums = self._sums.get(series) or self._new(series)
            sums.rows += rows
            sums.seconds += seconds
            sums.buckets[place] += 1
        if is_first:
            self._adding.ask()

    def add_up(self) -> None:
        """Add what was counted to the sums in Valkey; while it is away, counts wait."""
        with self._lock:
            counted, self._sums = self._sums, {}
        waiting = list(counted.items())
        try:
            while waiting:
                _add(waiting[-AT_ONCE:])
                del waiting[-AT_ONCE:]
        finally:
            with self._lock:
                for series, sums in waiting[-MOST_COUNTED:]:
                    _merge(self._sums.get(series) or self._new(series), sums)

    def _new(self, series: Series) -> Sums:
        if len(self._sums) >= MOST_COUNTED:
            del self._sums[next(iter(self._sums))]
        sums = self._sums[series] = Sums()
        return sums


def _merge(sums: Sums, other: Sums) -> None:
    sums.rows += other.rows
    sums.seconds += other.seconds
    sums.buckets = [one + another for one, another in zip(sums.buckets, other.buckets, strict=True)]


def _key(tenant: str) -> str:
    return f"tenantry:{tenant}:predictions"


def _add(counted: list[tuple[Series, Sums]]) -> None:
    with valkey().pipeline() as pipeline:
        for (tenant, *names), sums in counted:
            key, prefix = _key(tenant), "|".join(map(str, names))
            pipeline.hincrby(key, f"{prefix}|rows", sums.rows)
            pipeline.hincrbyfloat(key, f"{prefix}|seconds", sums.seconds)
            for place, count in enumerate(sums.buckets):
                if count:
                    pipeline.hincrby(key, f"{prefix}|{place}", count)
            pipeline.expire(key, KEPT_S)
        traffic.write(pipeline, map(_asked, counted))
        pipeline.execute()


def _asked(counted: tuple[Series, Sums]) -> tuple[str, str, traffic.Asked]:
    series, sums = counted
    calls = sum(sums.buckets)
    if series.status != OK:
        return series.tenant, series.model, traffic.Asked(calls, failed=calls)
    return series.tenant, series.model, traffic.Asked(calls, 0, sums.rows, list(sums.buckets))


class PredictionsCollector(Collector):
    """The sums of all processes, as Valkey has them now."""

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        labels = ("tenant", "model", "lane")
        predictions = CounterMetricFamily("tenantry_predictions", "Predictions asked for.", labels=(*labels, "status"))
        rows = CounterMetricFamily("tenantry_predicted_rows", "Rows that were predicted.", labels=labels)
        seconds = HistogramMetricFamily(
            "tenantry_prediction_seconds", "From the checked rows to the model's answer.", labels=labels
        )
        for (*names, status), sums in _all_sums():
            predictions.add_metric([*names, str(status)], sum(sums.buckets))
            if status == OK:
                rows.add_metric(names, sums.rows)
                seconds.add_metric(names, _cumulative(sums.buckets), sums.seconds)
        yield from (predictions, rows, seconds)

    def describe(self) -> list[CounterMetricFamily]:
        """Nothing: registering asks nobody."""
        return []


def _all_sums() -> Iterator[tuple[Series, Sums]]:
    """The series of all tenants, each by its tenantId."""
    with shared_scope():
        tenants = list(Tenant.objects.order_by("tenant_id").values_list("schema_name", "tenant_id"))
    for start in range(0, len(tenants), AT_ONCE):
        with valkey().pipeline(transaction=False) as pipeline:
            for schema_name, _ in tenants[start : start + AT_ONCE]:
                pipeline.hgetall(_key(schema_name))
            kept = pipeline.execute()
        for (_, tenant_id), fields in zip(tenants[start : start + AT_ONCE], kept, strict=True):
            yield from _series(tenant_id, fields)


class Predicted(NamedTuple):
    """What a tenant asked for, as far back as its sums go. failed: calls that got no prediction."""

    calls: int
    rows: int
    failed: int


def predicted_by(schema_names: Sequence[str]) -> dict[str, Predicted]:
    """What each of these tenants, named by their schemas, asked for; all of them in one question to Valkey."""
    with valkey().pipeline(transaction=False) as pipeline:
        for schema_name in schema_names:
            pipeline.hgetall(_key(schema_name))
        kept = pipeline.execute()
    return {name: _predicted(fields) for name, fields in zip(schema_names, kept, strict=True)}


def _predicted(fields: dict[bytes, bytes]) -> Predicted:
    calls = rows = failed = 0
    for series, sums in _series("", fields):
        asked = sum(sums.buckets)
        calls, rows, failed = calls + asked, rows + sums.rows, failed + (asked if series.status != OK else 0)
    return Predicted(calls, rows, failed)


def _series(tenant_id: str, fields: dict[bytes, bytes]) -> Iterator[tuple[Series, Sums]]:
    found: dict[Series, Sums] = {}
    for name, value in fields.items():
        model, lane, status, what = name.decode().split("|")
        sums = found.setdefault(Series(tenant_id, model, lane, int(status)), Sums())
        if what == "rows":
            sums.rows = int(value)
        elif what == "seconds":
            sums.seconds = float(value)
        elif int(what) < len(sums.buckets):
            sums.buckets[int(what)] = int(value)
    yield from sorted(found.items(), key=itemgetter(0))


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    return [(bound, sum(buckets[: place + 1])) for place, bound in enumerate(bounds)]


counts = Counts()
os.register_at_fork(after_in_child=counts.begin)
