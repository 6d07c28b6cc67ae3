"""Which file of an upload is the model, and what of it is not one. No runner: these files are only looked at."""

from __future__ import annotations

import os
import pickle
import zipfile

import pytest

from runtimes.bundle import Bundle
from runtimes.errors import ArtifactRejected
from runtimes.formats.recognition import Recognised, recognise
from tests.runtimes.conftest import bundle_of
from tests.runtimes.test_folders import zipped

MODEL = pickle.dumps(print)
XGBOOST = b'{"learner":{"attributes":{}}}'
LIGHTGBM = b"tree\nversion=v4\nnum_class=1\n"
CONFIG = b"MODEL:\n  META_ARCHITECTURE: GeneralizedRCNN\n"
SKLEARN = b"flavors:\n  sklearn:\n    pickled_model: model.pkl\n"


def found(files: dict[str, bytes]) -> Recognised:
    return recognise(Bundle(bundle_of(files)))


def refused(files: dict[str, bytes]) -> ArtifactRejected:
    with pytest.raises(ArtifactRejected) as rejected:
        found(files)
    assert rejected.value.reason.endswith(".")
    return rejected.value


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (MODEL, "sklearn"),
        (b"ccopy_reg\n_reconstructor\n(c", "sklearn"),
        (b"(dp0\nS'a'\n", "sklearn"),
        (XGBOOST, "xgboost"),
        (b"{L\0\0\0\0\0\0\0\x07learner{L", "xgboost"),
        (LIGHTGBM, "lightgbm"),
        (zipped({"x/data.pkl": b"", "x/version": b"3"}), "torch"),
        (zipped({"x/data.pkl": b"", "x/constants.pkl": b""}), "torchscript"),
        (zipped({"x/archive_format": b"pt2", "x/models/model.json": b"{}"}), "torch_export"),
        (zipped({"schema.json": b"{}"}), "skops"),
    ],
    ids=["pickle", "protocol 0", "old dict", "json", "ubjson", "lightgbm", "torch", "torchscript", "pt2", "skops"],
)
def test_a_format_is_told_by_its_content(data: bytes, name: str) -> None:
    assert found({"whatever.bin": data}).format == name


def test_what_lies_beside_a_model_is_no_model() -> None:
    beside = {
        "conda.yaml": b"channels:\n- conda-forge\n",
        "README": b"(c) 2026 the authors\nAll rights reserved\n",
        "columns.json": b'{"version": 3}',
        "helpers.py": b"c = 1\n",
        "code/words.pkl": MODEL,
        "rows.npz": zipped({"a.npy": b"", "b.npy": b""}),
    }

    assert found({**beside, "model.pkl": MODEL}).path == "model.pkl"


@pytest.mark.parametrize(
    "files",
    [
        {"model.h5": b"\x89HDF\r\n\x1a\n" + bytes(64)},
        {"model.keras": zipped({"config.json": b"{}", "model.weights.h5": b"", "metadata.json": b"{}"})},
        {"m/saved_model.pb": b"\x08\x01\x12", "m/variables/variables.index": b""},
        {"model.zip": zipped({"m/saved_model.pb": b"", "m/variables/variables.index": b""})},
        {"model.tflite": b"\x1c\0\0\0TFL3" + bytes(64)},
        {"MLmodel": b"flavors:\n  tensorflow: {saved_model_dir: m}\n", "m/saved_model.pb": b""},
    ],
    ids=["hdf5", "keras", "saved model", "zipped saved model", "tflite", "mlflow"],
)
def test_tensorflow_is_pointed_to_onnx(files: dict[str, bytes]) -> None:
    rejected = refused(files)

    assert rejected.code == "unsupported_format"
    assert "tf2onnx" in rejected.reason


@pytest.mark.parametrize("wrap", [dict, lambda files: {"up.zip": zipped(files)}], ids=["folder", "zip"])
@pytest.mark.parametrize("top", ["", "churn/"])
def test_an_mlflow_model_is_found_at_the_top_or_one_folder_below(wrap: type[dict[str, bytes]], top: str) -> None:
    model = found(wrap({f"{top}MLmodel": SKLEARN, f"{top}model.pkl": MODEL, f"{top}conda.yaml": b"channels:\n- a\n"}))

    assert (model.format, model.path) == ("sklearn", "model.pkl")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "unreadable_artifact"),
        (b"\xff\xfe\0", "unreadable_artifact"),
        (b"flavors: [a", "unreadable_artifact"),
        (b"flavors: &a [*a]", "unreadable_artifact"),
        (b"flavors: {}", "unreadable_artifact"),
        (b"flavors: {sklearn: {pickled_model: /etc/passwd}}", "unsupported_format"),
        (b"flavors: {sklearn: {pickled_model: ../model.pkl}}", "unsupported_format"),
        (b"flavors: {sklearn: {pickled_model: 7}}", "unsupported_format"),
        (b"flavors: {python_function: {loader_module: mlflow.catboost}, catboost: {}}", "unsupported_format"),
        (b"flavors: {python_function: 7}", "unsupported_format"),
        (b"a: !!python/object/apply:os.system [id]", "unreadable_artifact"),
    ],
)
def test_an_mlmodel_that_says_nothing_usable_is_refused(content: bytes, code: str) -> None:
    assert refused({"MLmodel": content, "model.pkl": MODEL}).code == code


def test_two_mlflow_models_are_ambiguous() -> None:
    assert refused({"a/MLmodel": SKLEARN, "b/MLmodel": SKLEARN}).code == "ambiguous_artifact"


def test_a_signature_that_has_no_counterpart_is_noted_and_left_out() -> None:
    signed = SKLEARN + b"""signature: {inputs: '[{"name": "seen", "type": "datetime"}]'}\n"""
    model = found({"MLmodel": signed, "model.pkl": MODEL})

    assert "signature" not in model.declared
    assert "datetime" in model.declared["notes"][0]


def test_a_zip_in_a_zip_is_refused() -> None:
    assert refused({"a.zip": zipped({"b.zip": zipped({"model.pkl": MODEL})})}).code == "unsupported_format"


def test_a_zipped_model_is_found_with_its_code() -> None:
    model = found({"a.zip": zipped({"model.pkl": MODEL, "code/lib.py": b""}, zipfile.ZIP_STORED)})

    assert (model.format, model.files.paths()) == ("sklearn", ("model.pkl", "code/lib.py"))


def test_detectron2_is_weights_with_a_configuration() -> None:
    model = found({"model_final.pth": zipped({"x/data.pkl": b""}), "config.yaml": CONFIG})

    assert (model.format, model.path, model.declared["config"]) == ("detectron2", "model_final.pth", "config.yaml")


def test_a_file_without_bytes_is_empty() -> None:
    assert "empty" in refused({"model.pkl": b""}).reason
    assert os.fspath("model.pkl") not in refused({"x": b"\0"}).reason
