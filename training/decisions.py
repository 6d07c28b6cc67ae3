"""Whether a run's version is good enough to serve: what `activate_if` comes to, with the numbers it rests on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models_registry.models import ModelVersion
from training.models import DecisionState, Run

ROUNDING = 1e-12  # 0.3 - 0.2 is a little under 0.1


@dataclass(frozen=True)
class Decision:
    """What was decided, in a sentence, and the numbers that were compared."""

    activates: bool
    reason: str
    numbers: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The decision as it is kept with its run."""
        state = DecisionState.ACTIVATED if self.activates else DecisionState.KEPT
        return {"state": state.value, "reason": self.reason, **self.numbers}


def pending(criterion: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept until the version has been inspected."""
    reason = "The version is being inspected; whether it serves is decided after that."
    return {"state": DecisionState.PENDING.value, "reason": reason, **criterion}


def keep_decision(run: Run, decision: Mapping[str, Any]) -> None:
    """Note the decision with the run, and with the search whose best trial it is."""
    Run.objects.filter(pk__in=[run.pk, run.parent_id]).update(activation_decision=dict(decision))


def decide(criterion: Mapping[str, Any], candidate: ModelVersion, active: ModelVersion | None) -> Decision:
    """Whether the candidate beats what serves by the criterion's metric and margin.

    Where nothing serves, a candidate that has the metric is activated. Where what serves lacks the metric, nothing is:
    the two cannot be compared.
    """
    metric, margin = criterion["metric"], criterion["margin"]
    ours, theirs = _value(candidate, metric), _value(active, metric) if active else None
    numbers = {
        **criterion,
        "version": candidate.number,
        "value": ours,
        "value_is": _origin(candidate, metric),
        "dataset": _dataset(candidate, metric),
        "active_version": active.number if active else None,
        "active_value": theirs,
        "active_value_is": _origin(active, metric) if active else None,
        "active_dataset": _dataset(active, metric) if active else None,
    }
    if not candidate.is_ready:
        return Decision(False, f"Version {candidate.number} cannot serve: {_why_not(candidate)}", numbers)
    if ours is None:
        return Decision(False, f"The run did not measure '{metric}'.", numbers)
    if active is None:
        return Decision(True, f"Nothing served; version {candidate.number} has {metric} {ours:.6g}.", numbers)
    if theirs is None:
        return Decision(
            False, f"Version {active.number}, which serves, has no metric '{metric}' to compare with.", numbers
        )
    gain = ours - theirs if criterion["direction"] == "max" else theirs - ours
    activates = gain > 0 and gain >= margin - ROUNDING
    verb = "beats" if activates else "does not beat"
    comparison = f"{metric} {ours:.6g} {verb} version {active.number}'s {theirs:.6g} by at least {margin:g}."
    return Decision(activates, f"{comparison}{_caution(numbers)}", {**numbers, "gain": gain})


def _value(version: ModelVersion, metric: str) -> float | None:
    value = version.metrics.get(metric)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _origin(version: ModelVersion, metric: str) -> str | None:
    if metric in version.metrics_measured:
        return "measured"
    return "reported" if metric in version.metrics_reported else None


def _dataset(version: ModelVersion, metric: str) -> str | None:
    """What its value was measured on, as `name@digest`; None of a value that was only reported."""
    told = version.measured_on if _origin(version, metric) == "measured" else {}
    return f"{told['dataset']}@{told.get('digest', '')}" if told.get("dataset") else None


def _caution(numbers: Mapping[str, Any]) -> str:
    """A sentence where the two values are not of one kind."""
    for number, value in (("active_version", "active_value_is"), ("version", "value_is")):
        if numbers[value] == "reported":
            return f" The value of version {numbers[number]} was only reported."
    if numbers["dataset"] != numbers["active_dataset"]:
        return " The two were measured on different data."
    return ""


def _why_not(version: ModelVersion) -> str:
    return version.rejection_reason or "its inspection did not come to an end."
