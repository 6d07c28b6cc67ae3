"""Training in a confined one-shot runner."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from runtimes import trainers
from runtimes.client import HostClient, LoadRequest, Progress
from runtimes.errors import ArtifactRejected, Cancelled, DeadlineExceeded, ModelError, ProtocolFault
from runtimes.evaluation import Judged, evaluation_of
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


def fit(client: HostClient, frame: pd.DataFrame | bytes, **options: Any) -> tuple[Any, bytes]:
    data = frame if isinstance(frame, bytes) else frame.to_csv(index=False).encode()
    out = io.BytesIO()
    asked: dict[str, Any] = {
        "trainer": "logistic_regression", "params": {}, "target": "left", "validation": HOLDOUT, **options
    }  # fmt: skip
    trainer = TRAINERS.get(asked["trainer"])
    asked["library_set"] = trainer.library_set if trainer else "sklearn"
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        report = client.fit(tenant="acme", dataset_fd=file.fileno(), out=out, **asked)
    return report, out.getvalue()


TABULAR = [name for name, trainer in TRAINERS.items() if trainer.library_set == "sklearn" and "text" not in name]
NETWORKS = [name for name in TRAINERS if name.startswith("mlp")]
CHANCY = ("random_forest", "hist_gradient", "xgboost", "lightgbm", "mlp")  # what draws random numbers, or uses threads


def test_every_trainer_is_offered_here() -> None:
    assert len(TABULAR) == 12
    assert len(NETWORKS) == 2


def test_a_file_adds_a_trainer_as_the_documents_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = (hosts.ROOT / "docs" / "training.md").read_text()
    example = next(block for block in told.split("```")[1::2] if "EstimatorTrainer" in block)
    (tmp_path / "ridge_regression.py").write_text(example.removeprefix("python\n"))
    monkeypatch.setattr(trainers, "__path__", [*trainers.__path__, str(tmp_path)])

    found = {trainer.name: trainer for trainer in trainers._trainers()}

    assert found.keys() == {*TRAINERS, "ridge_regression"}
    ridge = found["ridge_regression"](found["ridge_regression"].Params())
    features = table(60)[["age", "city", "member"]].astype({"city": object})
    assert len(ridge.fit(features, table(60)["value"], lambda *told, **more: None).predict(features)) == 60


@pytest.mark.parametrize("name", TABULAR)
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
    assert progress[-1].metrics == report.metrics == report.evaluation.metrics
    assert report.evaluation.importance[0].column == "age"
    found = client.inspect(
        bundle_of(artifact),
        tenant="acme",
        metadata={"signature": report.signature.to_json(), "input_example": report.input_example},
    )
    assert found.signature == report.signature
    example = pd.DataFrame(**report.input_example).astype({"city": object}).replace({None: np.nan})
    assert predicted(client, name, artifact, report) == pickle.loads(artifact).predict(example).tolist()


def predicted(client: HostClient, key: str, artifact: bytes, report: Any) -> list[Any]:
    rows, columns = report.input_example["data"], report.input_example["columns"]
    batch = {
        field.name: np.array([row[columns.index(field.name)] for row in rows], dtype=object).astype(
            object if field.dtype == "string" else field.dtype
        )
        for field in report.signature.inputs
    }
    return answered(client, key, artifact, report, batch)


def answered(client: HostClient, key: str, artifact: bytes, report: Any, batch: Any) -> list[Any]:
    declared = {"signature": report.signature.to_json(), **report.declared}
    runner = client.runner(f"fitted {key}", lambda: LoadRequest(bundle_of(artifact), "acme", report.format, declared))
    values: list[Any] = next(iter(runner.predict(batch, deadline_s=30).outputs.values())).tolist()
    return values


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_becomes_a_state_dict_with_its_architecture(client: HostClient, name: str) -> None:
    is_classifier = TRAINERS[name].task == "classification"
    frame = table().drop(columns=["city", "income", "value" if is_classifier else "left"])
    target = "left" if is_classifier else "value"
    frame["left"] = np.where(frame.age > 50, 1, 0) if is_classifier else 0
    progress: list[Progress] = []

    report, artifact = fit(
        client, frame, trainer=name, target=target, params={"epochs": 80, "batch_size": 32, "learning_rate": 0.01},
        on_progress=progress.append,
    )  # fmt: skip

    assert report.metrics["accuracy" if is_classifier else "r2"] > 0.9
    losses = [one.metrics["train_loss"] for one in progress if one.metrics and "train_loss" in one.metrics]
    assert len(losses) == 80
    assert losses[-1] < losses[0]
    assert artifact[:2] == b"PK"
    metadata = {"signature": report.signature.to_json(), "input_example": report.input_example, **report.declared}
    found = client.inspect(bundle_of({"model.pth": artifact}), tenant="acme", metadata=metadata)
    assert (found.format, found.task, found.signature) == ("torch", report.task, report.signature)
    rows = frame.drop(columns=target).head(50).to_numpy(dtype=np.float32)
    answers = np.ravel(answered(client, name, artifact, report, rows))
    close = answers == frame[target].head(50) if is_classifier else abs(answers - frame[target].head(50)) < 20
    assert np.mean(close) > 0.9


@pytest.mark.parametrize(("column", "told"), [("city", "'city' holds words"), ("income", "'income' has missing")])
def test_a_network_says_which_column_it_cannot_take(client: HostClient, column: str, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        fit(client, table()[["age", column, "left"]], trainer="mlp_classifier")


def test_texts_are_told_apart_by_their_words(client: HostClient) -> None:
    random = np.random.default_rng(0)
    words = {"sport": ["ball", "goal", "team"], "food": ["bread", "soup", "salt"]}
    rows = [(topic, " ".join([*random.choice(words[topic], 3), "the", "a"])) for topic in words for _ in range(100)]
    frame = pd.DataFrame(rows, columns=["topic", "text"])
    frame["number"] = 1.0
    frame.loc[:2, "text"] = np.nan

    report, artifact = fit(client, frame, trainer="text_classifier", target="topic", params={"ngrams": 2})

    assert report.metrics["accuracy"] > 0.9
    assert [field.name for field in report.signature.inputs] == ["text"]
    texts = np.array(["soup and bread", "a goal", None], dtype=object)
    assert answered(client, "texts", artifact, report, {"text": texts})[:2] == ["food", "sport"]
    with pytest.raises(ModelError, match="there is no column 'number' of texts; there are text"):
        fit(client, frame, trainer="text_classifier", target="topic", params={"column": "number"})


def test_dates_are_learned_from_and_the_artifact_needs_nothing_of_ours(client: HostClient) -> None:
    days = pd.date_range("2020-01-01", periods=400)
    frame = pd.DataFrame({"on": days.strftime("%Y-%m-%d"), "left": np.where(days.month > 6, "yes", "no")})
    frame.loc[5, "on"] = None

    report, artifact = fit(client, frame, trainer="random_forest_classifier")

    assert report.metrics["accuracy"] > 0.9
    script = (
        "import pickle, sys, pandas; sys.modules['runtimes'] = None; model = pickle.load(sys.stdin.buffer); "
        "print(model.predict(pandas.DataFrame({'on': ['2031-02-03']}))[0])"
    )
    command = [sys.executable, "-I", "-c", script]
    outcome = subprocess.run(command, input=artifact, capture_output=True, check=True, cwd="/")
    assert outcome.stdout == b"no\n"
    assert answered(client, "dates", artifact, report, {"on": np.array(["2031-08-03", None], dtype=object)})[0] == "yes"


def test_a_cross_validation_measures_every_row_once(client: HostClient) -> None:
    validation = {"kind": "kfold", "folds": 4, "seed": 1}
    progress: list[Progress] = []

    report, _ = fit(client, table().drop(columns="value"), validation=validation, on_progress=progress.append)

    found = report.evaluation
    assert (found.rows, len(found.folds)) == (400, 4)
    assert np.sum(found.confusion.counts) == 400
    assert found.confusion.labels == ["no", "yes"]
    assert report.metrics["accuracy"] == pytest.approx(np.mean([fold["accuracy"] for fold in found.folds]))
    assert [one.stage for one in progress if "fold" in one.stage] == [f"fold {n} of 4" for n in (1, 2, 3, 4)]
    assert fit(client, table().drop(columns="value"), validation=validation)[0].evaluation == found


def test_residuals_of_a_regression_are_counted(client: HostClient) -> None:
    report, _ = fit(client, table().drop(columns="left"), trainer="linear_regression", target="value")

    assert sum(report.evaluation.residuals.counts) == report.evaluation.rows == 100
    assert len(report.evaluation.misses) == 100
    assert (report.evaluation.confusion, report.evaluation.roc) == (None, [])


def test_a_roc_curve_has_the_area_that_was_measured(client: HostClient) -> None:
    report, _ = fit(client, table().drop(columns="value"))

    (curve,) = report.evaluation.roc
    assert (curve.label, curve.false_rates[0], curve.true_rates[-1]) == ("yes", 0.0, 1.0)
    assert np.trapezoid(curve.true_rates, curve.false_rates) == pytest.approx(report.metrics["roc_auc"], abs=0.01)


@pytest.mark.parametrize(("classes", "curves"), [(3, 3), (11, 0)])
def test_a_roc_curve_a_class_for_some_classes(classes: int, curves: int) -> None:
    random = np.random.default_rng(0)
    table = random.dirichlet(np.ones(classes), size=5_000)
    truth = np.array([random.choice(classes, p=row) for row in table])

    roc = evaluation_of([Judged(truth, table.argmax(axis=1), table, range(classes))], "classification").roc

    assert [curve.label for curve in roc] == list(range(curves))
    assert all(len(curve.true_rates) == len(curve.false_rates) <= 101 for curve in roc)


def test_a_class_that_no_row_is_of_has_no_roc_curve() -> None:
    table = np.full((4, 2), 0.5)
    assert evaluation_of([Judged(np.zeros(4), np.zeros(4), table, [0, 1])], "classification").roc == []


def test_a_watched_metric_is_told_while_the_model_grows(client: HostClient) -> None:
    progress: list[Progress] = []
    options = {"trainer": "hist_gradient_boosting_classifier", "params": {"max_iter": 40}, "watch": "log_loss"}

    fit(client, table().drop(columns="value"), **options, on_progress=progress.append)

    told = [one.metrics["log_loss"] for one in progress if one.metrics and one.stage == "fitting"]
    assert len(told) == 20
    assert told[-1] < told[0]


@pytest.mark.parametrize("name", [name for name in TRAINERS if name.startswith(CHANCY) and name.endswith("classifier")])
def test_the_same_run_again_measures_the_same(client: HostClient, name: str) -> None:
    frame = table(120)[["age", "member", "left"]]
    quick = {"n_estimators": 25, "max_iter": 25, "epochs": 3}
    params = {key: value for key, value in quick.items() if key in TRAINERS[name].Params.model_fields}

    first, second = (fit(client, frame, trainer=name, params=params)[0].metrics for _ in range(2))

    assert first == second


def test_growing_a_forest_step_by_step_gives_the_forest_of_one_fit() -> None:
    from sklearn.ensemble import RandomForestClassifier

    from runtimes.trainers.forest import ForestParams
    from runtimes.trainers.random_forest_classifier import RandomForestClassifierTrainer

    random = np.random.default_rng(0)
    rows, target = random.normal(size=(100, 3)), random.integers(0, 2, 100)

    trainer = RandomForestClassifierTrainer(ForestParams(n_estimators=30, seed=5))
    grown = trainer.fit_estimator(rows, target, lambda part, estimator: None)

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
