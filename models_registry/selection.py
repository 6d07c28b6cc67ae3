"""Choosing the best of several versions by a metric, and saying why."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet

from common.errors import Conflict, Invalid
from models_registry.models import Deployment, ModelVersion

DIRECTIONS = ("max", "min")
SHOWN = 50
# Signatures and the like may have a megabyte each; of the version that is chosen, they are read when asked for.
COMPARED = ("model__name", "number", "created_at", "metrics_reported", "metrics_measured", "measured_on")


@dataclass(frozen=True)
class Candidate:
    """A ready version and its value of the metric. dataset: what it was measured on; empty if it was only reported."""

    version: ModelVersion
    value: float
    is_measured: bool
    dataset: str
    is_active: bool

    def to_json(self) -> dict[str, Any]:
        """The candidate as JSON values."""
        return {
            "model": self.version.model.name,
            "version": self.version.number,
            "value": self.value,
            "source": "measured" if self.is_measured else "reported",
            "dataset": self.dataset or None,
        }


@dataclass(frozen=True)
class Choice:
    """The best candidate, what it was compared with, and the rules that decided.

    left_out: how many ready versions were not compared, since they lack the metric (or the dataset).
    """

    metric: str
    direction: str
    dataset: str
    best: Candidate
    candidates: tuple[Candidate, ...]
    left_out: int
    explanation: str

    def criteria(self) -> dict[str, Any]:
        """What was compared, to be kept with the activation."""
        return {
            "metric": self.metric,
            "direction": self.direction,
            "dataset": self.dataset or None,
            "value": self.best.value,
            "compared": [candidate.to_json() for candidate in self.candidates[:SHOWN]],
            "compared_count": len(self.candidates),
            "left_out_count": self.left_out,
            "explanation": self.explanation,
        }


def choose(versions: QuerySet[ModelVersion], *, metric: str, direction: str, dataset: str = "") -> Choice:
    """The best of these versions that are ready and have the metric as a finite number.

    Of a metric both measured and reported, the measured value counts. Among equals, the version that serves now stays;
    else a measured value goes before a reported one, then the newest version wins. dataset: compare only values
    measured on it, given as `name` or `name@digest` (the beginning of the digest will do).

    Raises:
        Invalid: the direction is neither max nor min.
        Conflict: no candidate.
    """
    if direction not in DIRECTIONS:
        raise Invalid("direction is max or min.", fields={"direction": direction[:40]})
    ready = list(versions.filter(state="ready").select_related("model").only(*COMPARED))
    active = set(Deployment.objects.values_list("activation__version", flat=True))
    found = [candidate for version in ready if (candidate := _candidate(version, metric, active))]
    compared = [candidate for candidate in found if not dataset or _is_of(candidate, dataset)]
    if not compared:
        where = f" measured on {dataset}" if dataset else ""
        raise Conflict(
            f"None of the {len(ready)} ready versions has the metric '{metric}'{where}.", code="no_candidate"
        )
    sign = 1 if direction == "max" else -1
    compared.sort(key=lambda one: (sign * one.value, *_precedence(one)), reverse=True)
    explanation = _explain(compared, metric, direction, dataset, len(ready) - len(compared))
    return Choice(metric, direction, dataset, compared[0], tuple(compared), len(ready) - len(compared), explanation)


def _candidate(version: ModelVersion, metric: str, active: set[Any]) -> Candidate | None:
    is_measured = metric in version.metrics_measured
    value = metric_value(version.metrics.get(metric))
    if value is None:
        return None
    dataset = _dataset(version.measured_on) if is_measured else ""
    return Candidate(version, value, is_measured, dataset, version.pk in active)


def metric_value(kept: Any) -> float | None:
    """What is kept of a metric as a number to compare by; None where it is none, or not a finite one."""
    if isinstance(kept, bool) or not isinstance(kept, int | float) or not math.isfinite(kept):
        return None
    return float(kept)


def _dataset(measured_on: Mapping[str, str]) -> str:
    return f"{measured_on['dataset']}@{measured_on.get('digest', '')}" if measured_on.get("dataset") else ""


def _is_of(candidate: Candidate, dataset: str) -> bool:
    name, _, digest = dataset.partition("@")
    own_name, _, own_digest = candidate.dataset.partition("@")
    return bool(own_name) and own_name == name and own_digest.startswith(digest)


def _precedence(candidate: Candidate) -> tuple[Any, ...]:
    return candidate.is_active, candidate.is_measured, candidate.version.created_at, candidate.version.number


def _explain(compared: list[Candidate], metric: str, direction: str, dataset: str, left_out: int) -> str:
    best = compared[0]
    word = "highest" if direction == "max" else "lowest"
    parts = [f"{best.version} has the {word} {metric}, {best.value:.6g}, of {len(compared)} ready versions compared."]
    if ties := sum(one.value == best.value for one in compared) - 1:
        why = "it serves already" if best.is_active else "measured goes before reported, then the newest"
        parts.append(f"{ties} more have the same value; it was preferred because {why}.")
    if left_out:
        parts.append(f"{left_out} were left out: no such metric{' measured on ' + dataset if dataset else ''}.")
    kinds = {one.dataset or "reported" for one in compared}
    if len(kinds) > 1:
        parts.append(
            "The values come from different datasets or were only reported, so they are not strictly comparable: "
            "name a dataset to compare like with like."
        )
    return " ".join(parts)
