"""A version serves by `activate_if` when it beats what serves, and the decision says why."""

import pytest

from models_registry.models import ModelVersion, VersionState
from training.decisions import decide


def version(number, *, state=VersionState.READY, reported=None, on="", **measured):
    measured_on = {"dataset": "churn", "digest": on} if on else {}
    return ModelVersion(
        number=number, state=state, metrics_measured=measured, metrics_reported=reported or {}, measured_on=measured_on
    )


def criterion(metric="f1", margin=0.0, direction="max"):
    return {"metric": metric, "margin": margin, "direction": direction}


@pytest.mark.parametrize(
    ("ours", "theirs", "margin", "direction", "activates"),
    [
        (0.91, 0.90, 0.0, "max", True),
        (0.90, 0.90, 0.0, "max", False),
        (0.89, 0.90, 0.0, "max", False),
        (0.30, 0.20, 0.1, "max", True),  # 0.3 - 0.2 is a little under 0.1
        (0.29, 0.20, 0.1, "max", False),
        (0.20, 0.30, 0.1, "min", True),
        (0.30, 0.20, 0.0, "min", False),
    ],
)
def test_a_version_must_be_better_by_the_margin(ours, theirs, margin, direction, activates):
    decision = decide(criterion(margin=margin, direction=direction), version(2, f1=ours), version(1, f1=theirs))
    assert decision.activates is activates
    assert decision.numbers["value"] == ours
    assert (decision.numbers["active_version"], decision.numbers["active_value"]) == (1, theirs)
    assert decision.to_json()["state"] == ("activated" if activates else "kept")


def test_where_nothing_serves_any_version_with_the_metric_does():
    decision = decide(criterion(), version(1, f1=0.1), None)
    assert decision.activates
    assert "Nothing served" in decision.reason


def test_without_the_metric_nothing_is_activated():
    assert not decide(criterion(), version(1, accuracy=1.0), None).activates


def test_what_serves_without_the_metric_is_kept_and_the_reason_says_so():
    decision = decide(criterion(), version(2, f1=0.9), version(1, accuracy=0.1))
    assert not decision.activates
    assert "Version 1, which serves, has no metric 'f1'" in decision.reason


@pytest.mark.parametrize("value", ["0.5", True, None, [0.5]])
def test_a_metric_that_is_no_number_is_none(value):
    assert not decide(criterion(), version(2, f1=0.9), version(1, reported={"f1": value})).activates


def test_a_reported_metric_is_compared_and_called_so():
    decision = decide(criterion(), version(2, f1=0.9), version(1, reported={"f1": 0.5}))
    assert decision.activates
    assert decision.numbers["active_value_is"] == "reported"
    assert decision.reason.endswith("The value of version 1 was only reported.")


def test_a_decision_says_on_which_data_each_value_was_measured():
    decision = decide(criterion(), version(2, f1=0.9, on="0a"), version(1, f1=0.5, on="1b"))
    numbers = decision.numbers
    assert (numbers["value_is"], numbers["dataset"], numbers["active_dataset"]) == ("measured", "churn@0a", "churn@1b")
    assert decision.reason.endswith("The two were measured on different data.")
    same = decide(criterion(), version(2, f1=0.9, on="0a"), version(1, f1=0.5, on="0a"))
    assert same.reason.endswith("by at least 0.")


def test_a_rejected_version_is_kept_out():
    candidate = version(2, state=VersionState.REJECTED, f1=0.9)
    candidate.rejection_reason = "It cannot be loaded."
    decision = decide(criterion(), candidate, None)
    assert not decision.activates
    assert "It cannot be loaded." in decision.reason
