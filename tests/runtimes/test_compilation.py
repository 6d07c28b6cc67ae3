"""Compilation to ONNX: each family answers as its original does, and what does not is not kept."""

from __future__ import annotations

import io
import os
import pickle
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from runtimes.client import HostClient, Inspection, LoadRequest, Prediction
from runtimes.compilation.requesting import Compilation
from runtimes.compilation.sampling import neighbours
from runtimes.errors import Cancelled
from runtimes.limits import Limits
from tests.runtimes.conftest import bundle_of
from tests.runtimes.payloads import predicting, running

RANDOM = np.random.default_rng(11)
ROWS = RANDOM.normal(size=(120, 4))
HOLED = np.where(RANDOM.random(ROWS.shape) < 0.1, np.nan, ROWS)
WORDS = np.where(ROWS[:, 0] + ROWS[:, 1] > 0.5, "yes", np.where(ROWS[:, 2] > 0, "no", "maybe"))
NUMBERS = (ROWS[:, 0] * ROWS[:, 1] > 0).astype(int)
VALUES = ROWS @ np.array([1.0, -2.0, 0.5, 3.0])
FRAME = pd.DataFrame(
    {
        "age": HOLED[:, 0] * 10 + 40,
        "city": np.where(RANDOM.random(120) < 0.1, np.nan, RANDOM.choice(["rome", "oslo", "lima"], 120).astype(object)),
        "income": ROWS[:, 1],
        "plan": RANDOM.choice(["a", "b"], 120).astype(object),
    }
)
TEXTS, COUNTS = ["city", "plan"], ["age", "income"]


class Compiled:
    """A compiled artifact: the verdict, and answers of its compiled form from a runner."""

    def __init__(self, client: HostClient, data: bytes, limits: Limits | None = None, **metadata: Any) -> None:
        self._client, self._out, self._metadata = client, io.BytesIO(), metadata
        fd = bundle_of(data)
        try:
            self.found: Inspection = client.inspect(fd, tenant="acme", metadata=metadata)
            options = {**metadata, "signature": self.found.signature.to_json()}
            self.verdict: Compilation = client.compile(
                fd, format_name=self.found.format, options=options, out=self._out, limits=limits
            )
        finally:
            os.close(fd)

    def predict(self, batch: Any, *, probabilities: bool = False) -> Prediction:
        """What the compiled form answers, out of a runner of its own."""
        assert self.verdict.is_compiled, self.verdict.sentence
        options: Mapping[str, Any] = {"signature": self.found.signature.to_json(), "is_compiled": True}
        load = LoadRequest(bundle_of(self._out.getvalue()), "acme", "onnx", options)
        runner = self._client.runner(f"compiled {hash(self._out.getvalue())}", lambda: load)
        return runner.predict(batch, probabilities=probabilities, deadline_s=30)


def columns(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """The frame as a batch; missing words are None."""
    return {
        str(name): column.to_numpy()
        if pd.api.types.is_numeric_dtype(column)
        else np.array([None if value != value else value for value in column], dtype=object)
        for name, column in frame.items()
    }


def scaled_words() -> Any:
    """Missing values filled, words one-hot, numbers scaled."""
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    return make_column_transformer((words, TEXTS), (make_pipeline(SimpleImputer(), StandardScaler()), COUNTS))


def rare_words() -> Any:
    """Missing words a word of their own, rare and unknown ones together."""
    words = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=2, sparse_output=False)
    filled = make_pipeline(SimpleImputer(strategy="constant", fill_value="missing"), words)
    return make_column_transformer((SimpleImputer(strategy="median"), COUNTS), (filled, TEXTS))


def numbered_words() -> Any:
    """Words as numbers, unknown ones as -1, missing numbers as they are."""
    words = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    return make_column_transformer(("passthrough", COUNTS), (words, TEXTS))


CLASSIFIERS = {
    "logistic regression": (LogisticRegression(), ROWS, WORDS),
    "logistic regression of numbers": (LogisticRegression(), ROWS, NUMBERS),
    "tree": (DecisionTreeClassifier(random_state=0), HOLED, WORDS),
    "forest": (RandomForestClassifier(20, max_depth=3, random_state=0), ROWS, NUMBERS),
    "gradient boosting": (GradientBoostingClassifier(n_estimators=10, random_state=0), ROWS, WORDS),
    "histogram boosting": (HistGradientBoostingClassifier(max_iter=10), HOLED, NUMBERS),
    "scaled forest": (make_pipeline(MinMaxScaler(), RandomForestClassifier(10, random_state=0)), ROWS, WORDS),
    "bayes": (GaussianNB(), ROWS, WORDS),
    "network": (MLPClassifier((5,), max_iter=50, random_state=0), ROWS, WORDS),
    "neighbours": (KNeighborsClassifier(), ROWS, NUMBERS),
    "voting": (VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft"), ROWS, WORDS),
    "columns and logistic regression": (make_pipeline(scaled_words(), LogisticRegression()), FRAME, WORDS),
    "columns and histogram boosting": (
        make_pipeline(numbered_words(), HistGradientBoostingClassifier(max_iter=10)),
        FRAME,
        WORDS,
    ),
}
WITHOUT_PROBABILITIES = {
    "linear support vectors": (LinearSVC(), ROWS, WORDS),
    "support vectors": (SVC(), ROWS, WORDS),
    "ridge": (Ridge(), ROWS, VALUES),
    "ridge of two targets": (Ridge(), ROWS, np.stack([VALUES, ROWS[:, 0]], axis=1)),
    "poisson": (PoissonRegressor(), ROWS, np.abs(VALUES)),
    "extra trees": (ExtraTreesRegressor(10, random_state=0), ROWS, VALUES),
    "histogram boosting of counts": (HistGradientBoostingRegressor(max_iter=10, loss="poisson"), HOLED, np.abs(VALUES)),
    "columns and a forest": (make_pipeline(rare_words(), RandomForestRegressor(10, random_state=0)), FRAME, VALUES),
    "isolation forest": (IsolationForest(n_estimators=20, max_features=0.5, random_state=0), ROWS, None),
    "numeric columns": (Ridge(), FRAME[["income"]].assign(other=ROWS[:, 2]), VALUES),
}


def batch_of(rows: Any) -> Any:
    return columns(rows) if isinstance(rows, pd.DataFrame) else rows


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_compiles_to_equal_answers(client: HostClient, name: str) -> None:
    estimator, rows, target = CLASSIFIERS[name]
    model = estimator.fit(rows, target)

    compiled = Compiled(client, pickle.dumps(model))
    prediction = compiled.predict(batch_of(rows), probabilities=True)

    assert compiled.verdict.rows is not None
    assert compiled.verdict.rows > 1000
    labels = prediction.outputs["prediction"]
    assert labels.tolist() == model.predict(rows).tolist()
    assert labels.dtype.kind == ("O" if target.dtype.kind == "U" else "i")
    np.testing.assert_allclose(prediction.probabilities, model.predict_proba(rows), atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", WITHOUT_PROBABILITIES)
def test_an_estimator_compiles_to_equal_answers(client: HostClient, name: str) -> None:
    estimator, rows, target = WITHOUT_PROBABILITIES[name]
    model = estimator.fit(rows, target)

    answers = Compiled(client, pickle.dumps(model)).predict(batch_of(rows)).outputs["prediction"]

    expected = model.predict(rows)
    assert answers.shape == expected.shape
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(answers, expected, rtol=1e-6)
    else:
        assert answers.tolist() == expected.tolist()


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(5, random_state=0),
        GradientBoostingClassifier(n_estimators=5, random_state=0),
        HistGradientBoostingClassifier(max_iter=5),
        make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=5)),
    ],
    ids=["forest", "gradient boosting", "histogram boosting", "scaled histogram boosting"],
)
def test_rows_on_and_beside_a_threshold_take_the_same_branch(client: HostClient, model: Any) -> None:
    model.fit(ROWS, WORDS)
    rows = np.repeat(ROWS[:40], len(neighbours(0.0)), axis=0)
    splits = np.unique(ROWS[:, 0])
    middles = (splits[:-1] + splits[1:]) / 2
    rows[:, 0] = [value for middle in middles[:40] for value in neighbours(middle)]

    answers = Compiled(client, pickle.dumps(model)).predict(rows).outputs["prediction"]

    assert answers.tolist() == model.predict(rows).tolist()


def test_what_float32_would_send_another_way_is_not_kept(client: HostClient) -> None:
    # skl2onnx has this booster in float32 alone; the scaler before it then moves rows over a threshold
    model = make_pipeline(StandardScaler(), AdaBoostClassifier(DecisionTreeClassifier(max_depth=3), n_estimators=10))
    model.fit(ROWS * 1000 + 7, WORDS)

    verdict = Compiled(client, pickle.dumps(model)).verdict

    assert verdict.state == "not_compiled"
    assert verdict.sentence.startswith("Not compiled. The compiled form gives another label in ")


def test_a_compiled_form_that_answers_the_training_rows_otherwise_is_not_kept(client: HostClient) -> None:
    # a threshold beyond float64's reach of the samples, but not of the rows that came with the model
    model = make_pipeline(StandardScaler(), AdaBoostClassifier(DecisionTreeClassifier(max_depth=1), n_estimators=1))
    rows = np.array([[16_777_216.0], [16_777_217.0], [16_777_216.0], [16_777_217.0]])
    model.fit(rows, ["low", "high", "low", "high"])

    verdict = Compiled(client, pickle.dumps(model), input_example=rows.tolist()).verdict

    assert not verdict.is_compiled


def test_what_has_no_conversion_says_so(client: HostClient) -> None:
    verdict = Compiled(client, pickle.dumps(DummyClassifier().fit(ROWS, WORDS))).verdict

    assert verdict.to_json() == {
        "state": "not_compiled",
        "sentence": "Not compiled. There is no conversion of DummyClassifier to ONNX.",
    }


def test_words_that_the_original_refuses_are_refused(client: HostClient) -> None:
    model = make_pipeline(make_column_transformer((OneHotEncoder(), ["plan"]), ("passthrough", ["income"])), Ridge())
    compiled = Compiled(client, pickle.dumps(model.fit(FRAME[["plan", "income"]], VALUES)))
    known, unknown = np.array(["a"], dtype=object), np.array(["z"], dtype=object)

    compiled.predict({"plan": known, "income": np.ones(1)})

    with pytest.raises(Exception, match="indices"):
        compiled.predict({"plan": unknown, "income": np.ones(1)})


def network(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(*layers).eval()


def saved(value: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def scripted(module: nn.Module) -> bytes:
    out = io.BytesIO()
    torch.jit.save(torch.jit.script(module), out)
    return out.getvalue()


def test_a_network_compiles_to_equal_answers(client: HostClient) -> None:
    module = network(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    layers = [{"type": "linear", "in_features": 4, "out_features": 8}, "relu"]
    layers.append({"type": "linear", "in_features": 8, "out_features": 3})
    rows = ROWS.astype(np.float32)
    shares = torch.softmax(module(torch.from_numpy(rows)), dim=1).detach().numpy()
    names = np.array(["a", "b", "c"])

    compiled = Compiled(client, saved(module.state_dict()), architecture=layers, labels=names.tolist())
    prediction = compiled.predict(rows, probabilities=True)

    assert prediction.outputs["prediction"].tolist() == names[shares.argmax(axis=1)].tolist()
    np.testing.assert_allclose(prediction.probabilities, shares, atol=1e-6)  # type: ignore[arg-type]


def test_a_network_that_ends_in_a_sigmoid_keeps_its_probability(client: HostClient) -> None:
    module = network(nn.Linear(4, 1), nn.Sigmoid())
    rows = ROWS.astype(np.float32)
    second = module(torch.from_numpy(rows)).detach().numpy().reshape(-1)

    compiled = Compiled(client, scripted(module), labels=["no", "yes"], input_example=rows[:2].tolist())
    prediction = compiled.predict(rows, probabilities=True)

    assert prediction.probabilities is not None
    np.testing.assert_allclose(prediction.probabilities[:, 1], second, atol=1e-6)


def compiled_directly(client: HostClient, data: bytes, limits: Limits) -> tuple[Compilation, int]:
    """The verdict on an artifact of two columns that was never inspected, and how many bytes came of it."""
    out = io.BytesIO()
    fd = bundle_of(data)
    signature = {"layout": "tensor", "inputs": [{"name": "x", "dtype": "float64", "shape": [-1, 2]}], "outputs": []}
    try:
        verdict = client.compile(fd, format_name="sklearn", options={"signature": signature}, out=out, limits=limits)
    finally:
        os.close(fd)
    return verdict, out.tell()


FLOOD = """
import msgpack, struct
packed = msgpack.packb({"artifact": True})
frame = struct.pack("<IIQ", 1, len(packed), 1 << 16) + packed + bytes(-len(packed) % 16) + bytes(1 << 16)
while True:
    for fd in range(3, 9):
        try:
            os.write(fd, frame)
        except OSError:
            pass
"""
HOSTILE = {
    "reads a file": running("result = open('/etc/passwd').read()"),
    "forks as it loads": running("result = os.fork()"),
    "exits as it predicts": predicting("os._exit(0)"),
    "opens a socket as it predicts": predicting("result = socket.socket()"),
    "takes all memory": predicting("big = [bytearray(1 << 28) for _ in range(64)]"),
    "never ends": predicting("while True: pass"),
    "floods its client": predicting(FLOOD),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_artifact_is_only_not_compiled(client: HostClient, name: str) -> None:
    limits = Limits(compile_seconds=3.0, artifact_bytes=1 << 20)

    verdict, came = compiled_directly(client, HOSTILE[name], limits)

    assert verdict.state == "not_compiled"
    assert came <= 1 << 20
    assert client.check()


def test_a_compiled_form_over_the_limit_is_not_kept(client: HostClient) -> None:
    model = RandomForestClassifier(20, random_state=0).fit(ROWS, WORDS)

    verdict = Compiled(client, pickle.dumps(model), Limits(artifact_bytes=10_000)).verdict

    assert verdict.sentence == "Not compiled. The compiled form is larger than a model may be."


def test_a_compilation_ends_when_it_is_cancelled(client: HostClient) -> None:
    fd = bundle_of(predicting("while True: pass"))
    options = {"signature": {"inputs": [{"name": "x", "dtype": "float64", "shape": [-1, 2]}]}}
    stages: list[str] = []
    started = time.monotonic()

    with pytest.raises(Cancelled):
        client.compile(
            fd,
            format_name="sklearn",
            options=options,
            out=io.BytesIO(),
            on_stage=stages.append,
            is_cancelled=lambda: bool(stages) or time.monotonic() > started + 5,
        )

    os.close(fd)
    assert time.monotonic() - started < 10


def test_a_compiled_form_that_cannot_be_loaded_gives_way_to_the_original(client: HostClient) -> None:
    data = pickle.dumps(LogisticRegression().fit(ROWS, WORDS))
    signature = Compiled(client, data).found.signature.to_json()
    original = LoadRequest(bundle_of(data), "acme", "sklearn", {"signature": signature})
    broken = LoadRequest(
        bundle_of(b"no graph"), "acme", "onnx", {"signature": signature, "is_compiled": True}, fallback=lambda: original
    )

    answers = client.runner("given way", lambda: broken).predict(ROWS, deadline_s=30).outputs["prediction"]

    assert len(answers) == len(ROWS)
