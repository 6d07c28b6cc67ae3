"""Training in a confined one-shot runner."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from runtimes.client import FitReport, HostClient, LoadRequest, Progress
from runtimes.errors import ArtifactRejected, Cancelled, DeadlineExceeded, ModelError, ProtocolFault
from runtimes.limits import MIB, Limits
from runtimes.trainers import TRAINERS
from tests.runtimes import hosts
from tests.runtimes.conftest import bundle_of

HOLDOUT = {"kind": "holdout", "fraction": 0.25, "seed": 7}


def table(rows: int = 400) -> pd.DataFrame:
    random = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "age": random.integers(18, 80, rows),
            "city": random.choice(["oslo", "rome", "a,b"], rows),
            "income": random.normal(size=rows),
            "member": random.random(rows) > 0.5,
        }
    )
    frame["left"] = np.where((frame.age > 50) | (frame.city == "oslo"), "yes", "no")
    frame["value"] = frame.age * 2 + frame.member * 10
    frame.loc[random.random(rows) < 0.1, ["city", "income"]] = np.nan
    return frame


def fit(client: HostClient, frame: pd.DataFrame | bytes, **options: Any) -> tuple[FitReport, bytes]:
    data = frame if isinstance(frame, bytes) else frame.to_csv(index=False).encode()
    out = io.BytesIO()
    asked: dict[str, Any] = {
        "trainer": "logistic_regression", "params": {}, "target": "left", "validation": HOLDOUT, **options
    }  # fmt: skip
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        report = client.fit(tenant="acme", dataset_fd=file.fileno(), out=out, **asked)
    return report, out.getvalue()


@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_fits_measures_and_sends_a_model_that_serves(client: HostClient, name: str) -> None:
    is_classifier = TRAINERS[name].task == "classification"
    target, other = ("left", "value") if is_classifier else ("value", "left")
    frame = table().drop(columns=other)
    progress: list[Progress] = []

    report, artifact = fit(client, frame, trainer=name, target=target, on_progress=progress.append)

    metric, least = ("accuracy", 0.8) if is_classifier else ("r2", 0.9)
    assert report.metrics[metric] > least
    assert (report.task, report.artifact_bytes) == (TRAINERS[name].task, len(artifact))
    assert [one.percent for one in progress] == sorted(one.percent for one in progress)
    assert progress[-1].metrics == report.metrics
    found = client.inspect(
        bundle_of(artifact),
        tenant="acme",
        metadata={"signature": report.signature.to_json(), "input_example": report.input_example},
    )
    assert found.signature == report.signature
    example = pd.DataFrame(**report.input_example).astype({"city": object}).replace({None: np.nan})
    assert predicted(client, name, artifact, report) == pickle.loads(artifact).predict(example).tolist()


def predicted(client: HostClient, key: str, artifact: bytes, report: FitReport) -> list[Any]:
    declared = {"signature": report.signature.to_json()}
    rows, columns = report.input_example["data"], report.input_example["columns"]
    batch = {
        field.name: np.array([row[columns.index(field.name)] for row in rows], dtype=object).astype(
            object if field.dtype == "string" else field.dtype
        )
        for field in report.signature.inputs
    }
    runner = client.runner(f"fitted {key}", lambda: LoadRequest(bundle_of(artifact), "acme", report.format, declared))
    values: list[Any] = runner.predict(batch, deadline_s=30).outputs["prediction"].tolist()
    return values


def test_the_same_seed_gives_the_same_metrics(client: HostClient) -> None:
    frame = table().drop(columns="value")
    options = {"trainer": "random_forest_classifier", "params": {"n_estimators": 25, "seed": 3}}

    first, second = (fit(client, frame, **options)[0].metrics for _ in range(2))

    assert first == second


def test_growing_a_forest_step_by_step_gives_the_forest_of_one_fit() -> None:
    from sklearn.ensemble import RandomForestClassifier

    from runtimes.trainers.forest import ForestParams
    from runtimes.trainers.random_forest_classifier import RandomForestClassifierTrainer

    random = np.random.default_rng(0)
    rows, target = random.normal(size=(100, 3)), random.integers(0, 2, 100)

    grown = RandomForestClassifierTrainer(ForestParams(n_estimators=30, seed=5)).fit(rows, target, lambda part: None)

    whole = RandomForestClassifier(30, max_features="sqrt", random_state=5).fit(rows, target)
    np.testing.assert_array_equal(grown.predict_proba(rows), whole.predict_proba(rows))


def test_a_fit_without_validation_measures_nothing(client: HostClient) -> None:
    report, _ = fit(client, table().drop(columns="value"), validation={"kind": "none"})

    assert report.metrics == {}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "The file is empty."),
        (b"a,left\n", "no rows"),
        (b"a,b\n1,2\n", "There is no column 'left'"),
        (b"left\nyes\n", "no column besides"),
        (b"a,left\n1,yes\n2\n", "Line 3 has 1 cells instead of 2"),
        (b"a,left\n1,yes\n2,no,3\n", "Line 3 has 3 cells"),
        (b"a,a,left\n1,2,yes\n", "Line 1, column 2: the name 'a' comes twice"),
        (b"a,,left\n1,2,yes\n", "Line 1, column 2: the column has no name"),
        (b"a,left\n1,yes\n2,\n", "Line 3, column 'left': the target is missing"),
        (b"a,left\n" + b"1,yes\n2,no\n" * 30 + b"x,no\n", "Line 62, column 'a': 'x' is not a number"),
        (b"a,left\n1,yes\n\xff,no\n", "Line 3 is not UTF-8"),
        (b"a,left\n1,yes\n2,yes\n", "one class only"),
    ],
)
def test_a_table_that_does_not_do_is_told_by_line_and_column(client: HostClient, data: bytes, told: str) -> None:
    with pytest.raises(ModelError) as fault:
        fit(client, data)

    assert fault.value.code == "invalid_dataset"
    assert told in fault.value.message


def test_a_word_in_a_numeric_target_is_told(client: HostClient) -> None:
    with pytest.raises(ModelError, match="Line 3, column 'left': 'no' is not a number"):
        fit(client, b"a,left\n1,5\n2,no\n", trainer="linear_regression")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"trainer": "magic"}, "unknown_trainer"),
        ({"params": {"C": -1}}, "invalid_parameter"),
        ({"params": {"unknown": 1}}, "invalid_parameter"),
        ({"validation": {"fraction": 7}}, "invalid_dataset"),
    ],
)
def test_what_cannot_be_asked_for_is_told(client: HostClient, options: dict[str, Any], code: str) -> None:
    with pytest.raises(ModelError) as fault:
        fit(client, table().drop(columns="value"), **options)

    assert fault.value.code == code


def test_an_order_that_cannot_be_sent_leaves_nothing_open(client: HostClient) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))

    for _ in range(10):
        with pytest.raises(ProtocolFault, match="cannot be sent"):
            fit(client, b"a,left\n1,yes\n", params={"C": object()})

    assert len(list(Path("/proc/self/fd").iterdir())) < before + 5


def long_fit(client: HostClient, **options: Any) -> None:
    fit(
        client,
        pd.concat([table().drop(columns="value")] * 20),
        trainer="random_forest_classifier",
        params={"n_estimators": 5000},
        **options,
    )


def runner_pids(client: HostClient) -> set[int]:
    """Every child of the host's process, which zygotes and runners are."""
    import psutil

    host = psutil.Process(next(iter(client.stats().zygotes.values()))).parent()
    assert host is not None
    return {child.pid for child in host.children()}


def test_a_cancelled_fit_ends_within_two_seconds(client: HostClient) -> None:
    before = runner_pids(client)
    asked_at: list[float] = []

    def is_cancelled() -> bool:
        if fitting and not asked_at:
            asked_at.append(time.monotonic())
        return bool(asked_at)

    fitting: list[Progress] = []

    def note(progress: Progress) -> None:
        fitting.extend([progress] * (progress.stage == "fitting"))

    with pytest.raises(Cancelled):
        long_fit(client, on_progress=note, is_cancelled=is_cancelled)

    assert time.monotonic() - asked_at[0] < 2
    assert runner_pids(client) <= before


def test_a_fit_whose_client_dies_is_ended(client: HostClient, folder: Path) -> None:
    before = runner_pids(client)
    pid = os.fork()
    if pid == 0:
        long_fit(client)
    assert hosts.eventually(lambda: runner_pids(client) - before, seconds=30)
    os.kill(pid, 9)
    os.waitpid(pid, 0)

    assert hosts.eventually(lambda: runner_pids(client) <= before)


@pytest.mark.parametrize(
    ("limits", "fault"),
    [
        (Limits(fit_seconds=1.0), DeadlineExceeded),
        (Limits(cpu_seconds=1), DeadlineExceeded),
        (Limits(memory_bytes=8 * MIB), ModelError),
    ],
)
def test_a_fit_over_its_budget_is_ended(client: HostClient, limits: Limits, fault: type[Exception]) -> None:
    with pytest.raises(fault):
        long_fit(client, limits=limits)


def test_a_model_over_the_size_limit_is_refused(client: HostClient) -> None:
    frame = table().drop(columns="value")

    with pytest.raises(ArtifactRejected) as fault:
        fit(client, frame, trainer="random_forest_classifier", limits=Limits(artifact_bytes=1000))

    assert fault.value.code == "artifact_too_large"
