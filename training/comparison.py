"""Several runs side by side: which parameters and metrics they have, and where they differ."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.models import Run, RunMetric

MOST_POINTS, POINTS_OF_A_CURVE = 100_000, 200


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


def curves_of(ids: Sequence[uuid.UUID]) -> list[Curve]:
    """The histories of the metrics that have more than one value, by their names and in the order of the runs."""
    found: dict[tuple[str, uuid.UUID], Curve] = {}
    rows = RunMetric.objects.filter(run__in=ids).order_by("step", "at", "pk").values_list("run", "key", "step", "value")
    for run, key, step, value in rows[:MOST_POINTS]:
        curve = found.setdefault((key, run), Curve(run, key, [], []))
        curve.steps.append(step)
        curve.values.append(value)
    places = {run: place for place, run in enumerate(ids)}
    ordered = sorted(found.values(), key=lambda curve: (curve.key, places[curve.run]))
    return [_thinned(curve) for curve in ordered if len(curve.steps) > 1]


def _thinned(curve: Curve) -> Curve:
    every = -(-len(curve.steps) // POINTS_OF_A_CURVE)
    return Curve(curve.run, curve.key, curve.steps[::every], curve.values[::every])


def _confusions(ids: Sequence[uuid.UUID]) -> list[dict[str, Any]]:
    found = dict(Run.objects.filter(pk__in=ids, evaluation__confusion__isnull=False).values_list("pk", "evaluation"))
    told = {run: (evaluation or {}).get("confusion") for run, evaluation in found.items()}
    return [{"run": run, **confusion} for run in ids if (confusion := told.get(run))]


def _side_by_side(columns: Sequence[Mapping[str, Any]]) -> list[Compared]:
    names = sorted({name for column in columns for name in column})
    return [Compared(name, [column.get(name) for column in columns]) for name in names]
