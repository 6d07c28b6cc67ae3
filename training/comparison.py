"""Several runs side by side: which parameters and metrics they have, and where they differ."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, F, Q, QuerySet, Window
from django.db.models.functions import RowNumber

from common.errors import Invalid
from training.models import Run, RunMetric

MOST_COMPARED = 20
POINTS_OF_A_CURVE = 200
MOST_POINTS = 50_000


@dataclass(frozen=True)
class Compared:
    """One parameter or metric. values: one a run, in their order; None where a run has none."""

    name: str
    values: list[Any]

    @property
    def is_same(self) -> bool:
        """Whether all runs have the same value."""
        return all(value == self.values[0] for value in self.values)


@dataclass(frozen=True)
class Curve:
    """A metric's history in one run."""

    run: uuid.UUID
    key: str
    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side. confusions: `run`, `labels`, `counts` of those that have one."""

    runs: list[Run]
    params: list[Compared]
    metrics: list[Compared]
    curves: list[Curve]
    confusions: list[dict[str, Any]]


def compare(runs: Sequence[Run]) -> Comparison:
    """The runs in the given order, with every parameter and metric that any of them has."""
    return Comparison(
        runs=list(runs),
        params=_side_by_side([run.params for run in runs]),
        metrics=_side_by_side([run.metrics for run in runs]),
        curves=curves_of([run.pk for run in runs]),
        confusions=_confusions([run.pk for run in runs]),
    )


def asked_ids(text: str) -> list[uuid.UUID]:
    """The ids of the runs to compare in a text that parts them by commas.

    Raises:
        Invalid: one is none, or there are too few or too many of them.
    """
    try:
        ids = list(dict.fromkeys(uuid.UUID(part.strip()) for part in text.split(",") if part))
    except ValueError as error:
        raise Invalid("ids are the ids of runs, parted by commas.", fields={"ids": "not an id"}) from error
    if not 2 <= len(ids) <= MOST_COMPARED:
        raise Invalid(f"Name 2 to {MOST_COMPARED} runs.", fields={"ids": f"{len(ids)} runs"})
    return ids


def curves_of(ids: Sequence[uuid.UUID]) -> list[Curve]:
    """The histories of the metrics that have more than one value, by their names and in the order of the runs.

    PostgreSQL thins the long ones out, so that a history of 100,000 values costs a page no more than its curve.
    """
    found: dict[tuple[str, uuid.UUID], Curve] = {}
    for run, key, step, value in _thinned(ids)[:MOST_POINTS]:
        curve = found.setdefault((key, run), Curve(run, key, [], []))
        curve.steps.append(step)
        curve.values.append(value)
    places = {run: place for place, run in enumerate(ids)}
    return sorted(found.values(), key=lambda curve: (curve.key, places[curve.run]))


def _thinned(ids: Sequence[uuid.UUID]) -> QuerySet[RunMetric, tuple[uuid.UUID, str, int, float]]:
    """The values to draw: of each curve the first, the last, and every so manieth between them."""
    one_curve = [F("run"), F("key")]
    history = RunMetric.objects.filter(run__in=ids).annotate(
        place=Window(RowNumber(), partition_by=one_curve, order_by=("step", "at", "pk")),
        length=Window(Count("pk"), partition_by=one_curve),
    )
    every = (F("length") + POINTS_OF_A_CURVE - 1) / POINTS_OF_A_CURVE
    kept = history.alias(rest=(F("place") - 1) % every).filter(Q(rest=0) | Q(place=F("length")), length__gt=1)
    return kept.order_by("key", "run", "place").values_list("run", "key", "step", "value")


def _confusions(ids: Sequence[uuid.UUID]) -> list[dict[str, Any]]:
    found = dict(Run.objects.filter(pk__in=ids, evaluation__confusion__isnull=False).values_list("pk", "evaluation"))
    told = {run: (evaluation or {}).get("confusion") for run, evaluation in found.items()}
    return [{"run": run, **confusion} for run in ids if (confusion := told.get(run))]


def _side_by_side(columns: Sequence[Mapping[str, Any]]) -> list[Compared]:
    names = sorted({name for column in columns for name in column})
    return [Compared(name, [column.get(name) for column in columns]) for name in names]
