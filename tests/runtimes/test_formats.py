"""Every format: what an inspection finds, and predictions equal to the library's own."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import cloudpickle
import joblib
import numpy as np
import onnx
import pandas as pd
import pytest
import skl2onnx
import skops.io
from onnx import TensorProto, helper
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from runtimes.client import HostClient, Inspection, LoadRequest, Prediction
from runtimes.errors import ArtifactRejected
from tests.runtimes.conftest import bundle_of
from tests.runtimes.payloads import Call

RANDOM = np.random.default_rng(3)
ROWS = RANDOM.normal(size=(60, 4))
TARGET = np.where(ROWS[:, 0] > 0, "yes", "no")
FRAME = pd.DataFrame({"age": ROWS[:, 0], "city": RANDOM.choice(["rome", "oslo"], 60), "income": ROWS[:, 1]})
FRAME.loc[4, "city"] = None
LABELS = [f"digit {number}" for number in range(3)]


def inspected(client: HostClient, data: bytes, **metadata: Any) -> Inspection:
    fd = bundle_of(data)
    try:
        return client.inspect(fd, tenant="acme", metadata=metadata)
    finally:
        os.close(fd)


def served(
    client: HostClient, data: bytes, batch: Any, found: Inspection, *, probabilities: bool = False, **options: Any
) -> Prediction:
    declared = {"signature": found.signature.to_json(), **options}
    key = f"format {hash(data)} {sorted(options)}"
    runner = client.runner(key, lambda: LoadRequest(bundle_of(data), "acme", found.format, declared))
    return runner.predict(batch, probabilities=probabilities, deadline_s=30)


def rejection(client: HostClient, data: bytes, **metadata: Any) -> ArtifactRejected:
    with pytest.raises(ArtifactRejected) as rejected:
        inspected(client, data, **metadata)
    assert rejected.value.reason[0].isupper()
    assert rejected.value.reason.endswith(".")
    return rejected.value


def dumped(model: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    joblib.dump(model, file, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def forest() -> RandomForestClassifier:
    return RandomForestClassifier(10, random_state=0).fit(ROWS, TARGET)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    prepare = make_column_transformer((texts, ["city"]), (numbers, ["age"]), ("passthrough", ["income"]))
    return make_pipeline(prepare, LogisticRegression()).fit(FRAME, TARGET)


@pytest.mark.parametrize(
    "write",
    [
        pickle.dumps,
        lambda model: pickle.dumps(model, protocol=0),
        cloudpickle.dumps,
        dumped,
        lambda model: dumped(model, compress=3),
        lambda model: dumped(model, compress=("xz", 3)),
        lambda model: dumped(model, compress=("gzip", 3)),
        skops.io.dumps,
    ],
    ids=["pickle", "pickle 0", "cloudpickle", "joblib", "joblib zlib", "joblib xz", "joblib gzip", "skops"],
)
def test_a_scikit_learn_model_predicts_as_it_does_at_home(client: HostClient, forest: Any, write: Any) -> None:
    data = write(forest)
    found = inspected(client, data)

    prediction = served(client, data, ROWS, found, probabilities=True)

    assert (found.task, found.type_name) == ("classification", "RandomForestClassifier")
    assert found.made_with["scikit-learn"] == found.libraries["scikit-learn"]
    assert found.signature.classes == ("no", "yes")
    assert found.memory_bytes > 1 << 20
    assert prediction.outputs["prediction"].tolist() == forest.predict(ROWS).tolist()
    np.testing.assert_allclose(prediction.probabilities, forest.predict_proba(ROWS))  # type: ignore[arg-type]


def test_a_pipeline_keeps_its_columns(client: HostClient, pipeline: Any) -> None:
    data = pickle.dumps(pipeline)
    found = inspected(client, data)
    batch = {
        "age": np.array([0.5, np.nan]),
        "city": np.array(["oslo", None], dtype=object),
        "income": np.array([1.0, 2.0]),
    }

    prediction = served(client, data, batch, found, probabilities=True)

    fields = {field.name: (field.dtype, field.nullable) for field in found.signature.inputs}
    assert found.signature.layout == "columns"
    assert fields == {"age": ("float64", True), "city": ("string", True), "income": ("float64", False)}
    expected = pipeline.predict_proba(pd.DataFrame(batch).assign(city=["oslo", np.nan]))
    np.testing.assert_allclose(prediction.probabilities, expected)  # type: ignore[arg-type]


def test_a_regressor_is_one(client: HostClient) -> None:
    data = pickle.dumps(LinearRegression().fit(ROWS, ROWS[:, :2]))
    found = inspected(client, data)

    assert found.task == "regression"
    assert found.signature.outputs[0].shape == (-1, 2)


def test_a_classifier_of_several_targets_answers_each_without_probabilities(client: HostClient) -> None:
    model = MultiOutputClassifier(LogisticRegression()).fit(ROWS, np.stack([TARGET, TARGET[::-1]], axis=1))
    found = inspected(client, pickle.dumps(model))
    prediction = served(client, pickle.dumps(model), ROWS, found)
    assert (found.task, found.signature.classes) == ("classification", None)
    assert next(iter(prediction.outputs.values())).tolist() == model.predict(ROWS).tolist()


def test_labels_name_the_classes(client: HostClient) -> None:
    model = LogisticRegression().fit(ROWS, (ROWS[:, 0] > 0).astype(int))
    data = pickle.dumps(model)
    found = inspected(client, data, labels=["cold", "hot"])

    prediction = served(client, data, ROWS, found, labels=["cold", "hot"])

    assert found.signature.classes == ("cold", "hot")
    expected = np.where(model.predict(ROWS) == 1, "hot", "cold")
    assert prediction.outputs["prediction"].tolist() == expected.tolist()


def test_too_few_labels_are_refused(client: HostClient, forest: Any) -> None:
    assert rejection(client, pickle.dumps(forest), labels=["one"]).code == "labels_mismatch"


def test_a_declared_signature_is_kept_and_checked(client: HostClient, forest: Any) -> None:
    field = {"name": "flowers", "dtype": "float32", "shape": [-1, 4]}

    assert inspected(client, pickle.dumps(forest), signature={"inputs": [field]}).signature.inputs[0].name == "flowers"
    wrong = {"inputs": [{**field, "shape": [-1, 5]}]}
    assert rejection(client, pickle.dumps(forest), signature=wrong).code == "signature_mismatch"


class Silent:
    """A predictor that does not say what it takes, and answers by name."""

    def predict(self, rows: Any) -> Mapping[str, Any]:
        return {"total": rows.sum(axis=1), "word": ["a"] * len(rows)}


def test_a_model_that_does_not_say_what_it_takes_needs_an_example(client: HostClient) -> None:
    cloudpickle.register_pickle_by_value(__import__("tests.runtimes.test_formats", fromlist=["x"]))
    data = cloudpickle.dumps(Silent())

    found = inspected(client, data, input_example=[[1, 2], [3, 4]])

    assert rejection(client, data).code == "signature_needed"
    assert [field.name for field in found.signature.outputs] == ["total", "word"]
    assert served(client, data, np.ones((1, 2)), found).outputs["total"].tolist() == [2.0]


def test_a_missing_module_is_named(client: HostClient) -> None:
    rejected = rejection(client, b"cauthors_module\nModel\n.")

    assert rejected.code == "missing_module"
    assert "authors_module" in rejected.reason


def test_a_missing_class_is_named(client: HostClient) -> None:
    rejected = rejection(client, b"c__main__\nTheirModel\n.")

    assert rejected.code == "missing_module"
    assert "TheirModel" in rejected.reason


def test_an_older_version_that_loads_is_a_warning(client: HostClient) -> None:
    model = LogisticRegression().fit(ROWS, TARGET)
    state = pickle.dumps(model)
    own = model.__getstate__()["_sklearn_version"].encode()
    found = inspected(client, state.replace(own, b"1.8.0"))

    assert found.made_with == {"scikit-learn": "1.8.0"}
    assert any("1.8.0" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "unreadable_artifact"),
        (b"\0" * 100, "unsupported_format"),
        (b"hello, this is no model", "unsupported_format"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "unsupported_format"),
        (pickle.dumps({"a": 1}), "no_predict_method"),
        (pickle.dumps(Call(bytearray, 1 << 41)), "load_memory"),
        (b"PK\x03\x04" + bytes(60), "unreadable_artifact"),
    ],
)
def test_what_is_no_model_is_rejected_with_a_stable_code(client: HostClient, data: bytes, code: str) -> None:
    assert rejection(client, data).code == code


def test_a_damaged_file_is_rejected_whatever_is_wrong_with_it(client: HostClient, forest: Any) -> None:
    random = np.random.default_rng(11)
    for data in (pickle.dumps(forest), dumped(forest, compress=3), skops.io.dumps(forest)):
        for place in random.integers(1, len(data) - 1, 4).tolist():
            flipped = bytearray(data)
            flipped[place] ^= 0xFF
            rejection(client, data[:place])
            with suppress(ArtifactRejected):
                inspected(client, bytes(flipped))


def test_two_model_files_in_one_bundle_are_ambiguous(client: HostClient, forest: Any) -> None:
    fd = bundle_of({"a.pkl": pickle.dumps(forest), "b.pkl": pickle.dumps(forest)})

    with pytest.raises(ArtifactRejected) as rejected:
        client.inspect(fd, tenant="acme", metadata={})

    assert rejected.value.code == "ambiguous_artifact"


def graph(*nodes: onnx.NodeProto, outputs: int = 3) -> bytes:
    weights = helper.make_tensor("W", TensorProto.FLOAT, [4, 3], np.arange(12, dtype="float32"))
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, ["n", 4])], [info("y", TensorProto.FLOAT, ["n", outputs])], [weights]
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("zipmap", [True, False])
def test_an_onnx_classifier_equals_its_original(client: HostClient, forest: Any, zipmap: bool) -> None:
    converted = skl2onnx.to_onnx(forest, ROWS[:1].astype("float32"), options={"zipmap": zipmap})
    data = converted.SerializeToString()
    found = inspected(client, data)

    prediction = served(client, data, ROWS.astype("float32"), found, probabilities=True)

    assert (found.format, found.task, found.signature.classes) == ("onnx", "classification", ("no", "yes"))
    assert prediction.outputs["prediction"].tolist() == forest.predict(ROWS).tolist()
    np.testing.assert_allclose(prediction.probabilities, forest.predict_proba(ROWS), atol=1e-5)  # type: ignore[arg-type]


def test_an_onnx_graph_with_labels_classifies(client: HostClient) -> None:
    data = graph(helper.make_node("MatMul", ["x", "W"], ["y"]))
    found = inspected(client, data, labels=LABELS)

    prediction = served(client, data, np.ones((2, 4), "float32"), found, probabilities=True)

    assert prediction.outputs["prediction"].tolist() == [LABELS[2]] * 2
    assert prediction.probabilities is not None
    np.testing.assert_allclose(prediction.probabilities.sum(axis=1), 1)


@pytest.mark.parametrize(
    "data",
    [
        graph(helper.make_node("Expand", ["x", "W"], ["y"])),
        graph(helper.make_node("Anything", ["x"], ["y"], domain="evil")),
        graph(helper.make_node("Identity", ["x"], ["y"]), outputs=4).replace(b"Identity", b"Optional"),
    ],
    ids=["expand", "foreign domain", "unknown operator"],
)
def test_an_onnx_operator_that_is_not_served_is_refused(client: HostClient, data: bytes) -> None:
    assert rejection(client, data).code == "unsupported_operator"


def test_an_onnx_file_with_external_data_is_refused(client: HostClient) -> None:
    model = onnx.load_model_from_string(graph(helper.make_node("MatMul", ["x", "W"], ["y"])))
    weights = model.graph.initializer[0]
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="/etc/passwd")

    assert rejection(client, model.SerializeToString()).code == "unsupported_operator"


def test_a_cut_onnx_file_is_rejected(client: HostClient) -> None:
    data = graph(helper.make_node("MatMul", ["x", "W"], ["y"]))
    for place in (5, 20, len(data) - 3):
        rejection(client, data[:place])
