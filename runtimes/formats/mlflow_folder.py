"""An MLflow model folder: its `MLmodel` says which file holds the model, what it takes and what made it."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtimes.bundle import Files
from runtimes.errors import ArtifactRejected, plain
from runtimes.formats import mlflow_schema
from runtimes.formats.yaml_file import read_yaml

DESCRIPTION = "MLmodel"
MAX_EXAMPLE_BYTES = 4 << 20
PYFUNC = "python_function"
CODE_PATH = "model_code_path"
# flavour -> the keys that name its model file, its version key, and the library that it is the version of
FLAVOURS: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "sklearn": (("pickled_model",), "sklearn_version", "scikit-learn"),
    "pytorch": (("model_data",), "pytorch_version", "torch"),
    "onnx": (("data",), "onnx_version", "onnx"),
    "xgboost": (("data",), "xgb_version", "xgboost"),
    "lightgbm": (("data",), "lgb_version", "lightgbm"),
}
TENSORFLOW = frozenset({"tensorflow", "keras"})
# MLflow's own loaders of models that are an author's code: pickled, or a file
OF_PYTHON_MODELS = ("mlflow.pyfunc.model", "mlflow.pyfunc.loaders.code_model")


@dataclass(frozen=True)
class MlflowModel:
    """What an MLmodel file says; format: only where the flavour and not the file's content decides it."""

    format: str | None
    path: str
    declared: dict[str, Any]


def find(files: Files) -> str | None:
    """The folder that holds an MLmodel: "" for the top, or one folder below it; None where there is none.

    Raises:
        ArtifactRejected: there are several.
    """
    paths = files.paths()
    if DESCRIPTION in paths:
        return ""
    folders = [path.partition("/")[0] for path in paths if path.count("/") == 1 and path.endswith(f"/{DESCRIPTION}")]
    if len(folders) > 1:
        raise ArtifactRejected("ambiguous_artifact", "The upload holds several MLflow models; send one.")
    return folders[0] if folders else None


def read(files: Files) -> MlflowModel:
    """What the folder's MLmodel says.

    Raises:
        ArtifactRejected: it is not readable, or its flavours are not served.
    """
    content = read_yaml(files, DESCRIPTION)
    flavours = content.get("flavors")
    if not isinstance(flavours, Mapping) or not flavours:
        raise ArtifactRejected("unreadable_artifact", "The MLmodel file names no flavours.")
    declared = _declared(files, content, flavours)
    for name, (keys, _, _) in FLAVOURS.items():
        if isinstance(flavours.get(name), Mapping):
            return MlflowModel(None, _inside(_first(flavours[name], keys)), declared)
    return _python_function(flavours, declared)


def _python_function(flavours: Mapping[str, Any], declared: dict[str, Any]) -> MlflowModel:
    others = [str(name) for name in flavours if name != PYFUNC]
    flavour = flavours.get(PYFUNC)
    if TENSORFLOW & set(others):
        reason = "Keras and TensorFlow models are not served; log the model as ONNX (tf2onnx, mlflow.onnx) instead."
        raise ArtifactRejected("unsupported_format", reason)
    module = flavour.get("loader_module") if isinstance(flavour, Mapping) else None
    if not isinstance(flavour, Mapping) or not isinstance(module, str) or _is_foreign(module):
        shown = plain(", ".join(others or [str(module)]), 80)
        known = ", ".join([*FLAVOURS, PYFUNC])
        reason = f"The MLflow flavour '{shown}' is not served here; these are: {known}."
        raise ArtifactRejected("unsupported_format", reason)
    conf = {str(key): value for key, value in flavour.items()}
    path = _inside(_first(conf, ("python_model", "data", "model_path")))
    if CODE_PATH in conf:  # where the file lay at home; here it lies at the top
        path = posixpath.basename(str(conf[CODE_PATH]))
    return MlflowModel("pyfunc", path or DESCRIPTION, {**declared, PYFUNC: conf})


def _is_foreign(module: str) -> bool:
    """Whether a loader is one of MLflow's own, for a library that is not served."""
    return module.startswith("mlflow.") and module not in OF_PYTHON_MODELS


def _first(flavour: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    return next((value for key in keys if isinstance(value := flavour.get(key), str)), "")


def _inside(path: str) -> str:
    """The path as the folder's files are named; one that leads out of it names nothing."""
    return posixpath.normpath(path) if path else path


def _declared(files: Files, content: Mapping[str, Any], flavours: Mapping[str, Any]) -> dict[str, Any]:
    """The signature, the example and the versions, as far as they can be used."""
    notes: list[str] = []
    declared: dict[str, Any] = {"notes": notes, "made_with": _versions(content, flavours)}
    signature = mlflow_schema.signature_of(content.get("signature"), notes)
    example = _example(files, content.get("saved_input_example_info"))
    if signature is not None:
        declared |= {"signature": signature, "is_signature_of_artifact": True}
    if example is not None and (signature is None or mlflow_schema.fits(example, signature)):
        declared["input_example"] = example
    return declared


def _versions(content: Mapping[str, Any], flavours: Mapping[str, Any]) -> dict[str, str]:
    found = {"mlflow": content.get("mlflow_version")}
    for name, (_, key, library) in FLAVOURS.items():
        if isinstance(flavours.get(name), Mapping):
            found[library] = flavours[name].get(key)
    return {library: plain(version, 40).partition("+")[0] for library, version in found.items() if version}


def _example(files: Files, info: Any) -> Any:
    """The input example in its JSON file; None where there is none that can be read as rows."""
    if not isinstance(info, Mapping) or info.get("type") not in ("dataframe", "ndarray"):
        return None
    path = str(info.get("artifact_path"))
    if path not in files.paths() or files.size(path) > MAX_EXAMPLE_BYTES:
        return None
    try:
        example = json.loads(files.read(path))
    except (ValueError, RecursionError):
        return None
    return example if isinstance(example, list | dict) and example else None
