"""Tables that ship with scikit-learn go the whole way with real workers, from an upload to what serves."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sklearn import datasets

from tests.acceptance.stack import ROOT, Stack

sys.path.insert(0, str(ROOT / "clients" / "python" / "src"))  # a project of its own, which nobody has to install here
from tenantry_client import Tenant

QUIETLY = {"shows_progress": False}
TARGET = "target"


@pytest.fixture(scope="module")
def tenant(stack: Stack) -> Tenant:
    made = stack.tenant()
    return Tenant(made.base_url, made.token)


@pytest.mark.parametrize(
    ("name", "load", "trainer", "space", "metric", "least"),
    [
        ("wine", datasets.load_wine, "k_neighbors_classifier", {"n_neighbors": [3, 5]}, "accuracy", 0.9),
        ("diabetes", datasets.load_diabetes, "linear_regression", {"positive": [False, True]}, "r2", 0.3),
        ("digits", datasets.load_digits, "logistic_regression", {"C": [0.1, 1.0]}, "f1", 0.9),
    ],
    ids=["wine", "diabetes", "digits"],
)
def test_a_real_table_becomes_the_best_model_that_serves(
    tenant: Tenant,
    name: str,
    load: Callable[..., Any],
    trainer: str,
    space: Mapping[str, Any],
    metric: str,
    least: float,
) -> None:
    frame = load(as_frame=True).frame
    data = tenant.datasets.upload(frame, name)
    assert data.profile()["row_count"] == len(frame)
    run = tenant.runs.start(
        trainer, data, TARGET, name, experiment=name, activate_if={"metric": metric}
    ).wait(**QUIETLY)  # fmt: skip
    assert run.metrics[metric] > least
    assert run.decision is not None
    assert (run.decision["state"], run.decision["value"]) == ("activated", run.metrics[metric])
    search = tenant.searches.start(
        trainer, data, TARGET, name, space, method="grid", metric=metric, experiment=name,
        activate_if={"metric": metric, "margin": 0.5},
    ).wait(**QUIETLY)  # fmt: skip
    assert search.decision is not None
    assert (search.decision["state"], search.decision["active_value"]) == ("kept", run.metrics[metric])
    assert search.decision["dataset"] == search.decision["active_dataset"] == f"{name}@{data.digest}"
    listed = tenant.runs.list(experiment=name, order_by=f"-metrics.{metric}")
    assert [one.metrics[metric] for one in listed] == sorted((one.metrics[metric] for one in listed), reverse=True)
    assert len(listed) == 5  # the run, the search, two trials and the best one's fit
    compared = {row["name"]: row["values"] for row in tenant.runs.compare(run, search)["metrics"]}
    assert compared[metric] == [run.metrics[metric], search.metrics[metric]]
    answer = tenant.models[name].answer(frame.drop(columns=TARGET).head(20))
    assert (answer["version"], len(answer["predictions"])) == (run.version, 20)
