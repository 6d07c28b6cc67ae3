"""MLflow's Python models: a pickled `PythonModel`, a file that is the model's code, or a loader among the code."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import time
import types
import typing
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd

from runtimes.bundle import Files
from runtimes.bundled_code import show_files
from runtimes.errors import ArtifactRejected, plain
from runtimes.formats import mlflow_stand_in
from runtimes.formats.mlflow_folder import CODE_PATH, OF_PYTHON_MODELS, PYFUNC
from runtimes.formats.scikit_learn import Loaded, PickledModel, checked
from runtimes.libraries import BUILT_IN
from runtimes.protocol import Runtime, Source


class PythonFunction(PickledModel):
    """An MLflow model of the flavour python_function. Its artifacts are readable by their paths, with `open`."""

    name = "pyfunc"

    def read(self, source: Source) -> Loaded:
        """Load the model as MLflow does, without its data leaving the bundle."""
        started = time.monotonic()
        if source.options.get("library_set") in (None, *BUILT_IN) or importlib.util.find_spec("mlflow") is None:
            mlflow_stand_in.install()
        show_files(source.bundle)
        flavour = source.options[PYFUNC]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = _loaded(flavour, source.bundle, source.path)
        return checked(model, caught, time.monotonic() - started)


def _loaded(flavour: Mapping[str, Any], files: Files, path: str) -> Any:
    if flavour["loader_module"] not in OF_PYTHON_MODELS:
        return _of_loader(flavour, path)
    model = _of_code(files, path) if CODE_PATH in flavour else cloudpickle.loads(_pickle_of(files, path, flavour))
    context = mlflow_stand_in.PythonModelContext(_artifacts(flavour), flavour.get("model_config"))
    if not hasattr(model, "predict") and callable(model):
        return Asked(model, model, None)
    if hasattr(model, "load_context"):
        model.load_context(context)
    return Asked(model, getattr(model, "predict", None), context)


def _pickle_of(files: Files, path: str, flavour: Mapping[str, Any]) -> bytes:
    if flavour.get("python_model_compression") or flavour.get("compression"):
        raise ArtifactRejected("unsupported_format", "A compressed MLflow Python model is not served; log it without.")
    try:
        return files.read(path)
    except KeyError as error:
        raise _lacks(path) from error


def _of_loader(flavour: Mapping[str, Any], path: str) -> Any:
    """What the author's own `_load_pyfunc` gives for its data, which it may open by the path it is given."""
    loader = importlib.import_module(str(flavour["loader_module"]))
    model = loader._load_pyfunc(path if flavour.get("data") else ".")
    return Asked(model, getattr(model, "predict", None), None)


def _of_code(files: Files, path: str) -> Any:
    """The model that a file names by `mlflow.models.set_model`."""
    try:
        source = files.read(path)
    except KeyError as error:
        raise _lacks(path) from error
    module = types.ModuleType("__mlflow_model__")
    sys.modules[module.__name__] = module
    exec(compile(source, path, "exec"), module.__dict__)  # noqa: S102 (it is the artifact, in its runner)
    model = mlflow_stand_in.chosen()
    if model is None:
        raise ArtifactRejected("no_predict_method", f"The file '{plain(path, 80)}' does not call set_model.")
    return model


def _artifacts(flavour: Mapping[str, Any]) -> dict[str, str]:
    """The paths of the model's artifacts in its folder, by name."""
    artifacts = flavour.get("artifacts") or {}
    return {str(name): str(info["path"]) for name, info in artifacts.items()}


def _lacks(path: str) -> ArtifactRejected:
    return ArtifactRejected(
        "unreadable_artifact", f"The MLflow model names the file '{plain(path, 80)}', which it lacks."
    )


class Asked:
    """A Python model behind scikit-learn's `predict`."""

    def __init__(self, model: Any, predict: Callable[..., Any] | None, context: Any) -> None:
        self.type_name = type(model).__name__
        self._predict, self._context = predict, context
        if predict is None:
            raise ArtifactRejected("no_predict_method", f"The {plain(self.type_name, 80)} has no predict method.")
        names = _parameters(predict)
        self._options: dict[str, Any] = {"params": None} if "params" in names else {}
        self._takes_context = "context" in names or (len(names) > 1 and names[1] != "params")
        self._takes_list = _takes_list(predict)

    def predict(self, rows: Any) -> Any:
        """What the model returns for a frame of named columns, or for an array."""
        asked = _as_list(rows) if self._takes_list else rows
        before = (self._context,) if self._takes_context else ()
        assert self._predict is not None
        return self._predict(*before, asked, **self._options)


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _takes_list(function: Callable[..., Any]) -> bool:
    """Whether the rows' parameter is hinted as a list: MLflow hands such a model no frame."""
    hints = getattr(inspect.unwrap(function), "__annotations__", {})
    return any(typing.get_origin(hint) is list or hint is list for name, hint in hints.items() if name != "return")


def _as_list(rows: Any) -> list[Any]:
    if isinstance(rows, pd.DataFrame):
        return list(rows.iloc[:, 0]) if rows.shape[1] == 1 else list(rows.to_dict(orient="records"))
    return list(np.asarray(rows).tolist())


RUNTIMES: Mapping[str, Runtime] = {"pyfunc": PythonFunction()}
