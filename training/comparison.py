"""Several runs side by side: which parameters and metrics they have, and where they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.models import Run


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
class Comparison:
    """Runs side by side."""

    runs: list[Run]
    params: list[Compared]
    metrics: list[Compared]


def compare(runs: Sequence[Run]) -> Comparison:
    """The runs in the given order, with every parameter and metric that any of them has."""
    return Comparison(
        runs=list(runs),
        params=_side_by_side([run.params for run in runs]),
        metrics=_side_by_side([run.metrics for run in runs]),
    )


def _side_by_side(columns: Sequence[Mapping[str, Any]]) -> list[Compared]:
    names = sorted({name for column in columns for name in column})
    return [Compared(name, [column.get(name) for column in columns]) for name in names]
