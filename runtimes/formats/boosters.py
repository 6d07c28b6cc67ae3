"""XGBoost and LightGBM models in their own files: JSON, UBJSON and text. An extra: where the library is installed."""

from __future__ import annotations

import importlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runtimes import examples
from runtimes.errors import ArtifactRejected, plain
from runtimes.formats.outputs import PREDICTION, ClassTable, prove
from runtimes.protocol import Findings, OnStage, Prediction, Runtime, Source, Task
from runtimes.signature import Batch, ClassName, Field, Signature

EXTRA = "boosting"
INPUT_NAME = "input"
MADE_UP_NAME = re.compile(r"(Column_|f)\d+")  # what the libraries call columns that had no names
SAMPLE_ROWS = 2


class Booster:
    """A loaded model of either library.

    columns: the names of its columns; empty where it knows their number only. classes: how many; 0 for a number.
    """

    library: str
    columns: tuple[str, ...]
    width: int
    classes: int

    def __init__(self, data: bytes) -> None:
        raise NotImplementedError

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """(n,) or (n, classes) values, or probabilities, for (n, width) rows."""
        raise NotImplementedError

    def made_with(self) -> dict[str, str]:
        """The version that wrote it, if the file says so."""
        return {}


class XgboostBooster(Booster):
    """A model of XGBoost's, asked on one thread."""

    library = "xgboost"

    def __init__(self, data: bytes) -> None:
        self._xgboost = library("xgboost")
        self._booster = self._xgboost.Booster({"nthread": 1})
        self._booster.load_model(bytearray(data))
        if "c" in (self._booster.feature_types or ()):
            raise _unsupported("categorical columns")
        self.width = self._booster.num_features()
        self.columns = _names(self._booster.feature_names or (), self.width)
        self._conf = json.loads(self._booster.save_config())
        learner = self._conf["learner"]
        objective = str(learner["objective"]["name"])
        count = int(learner["learner_model_param"].get("num_class", 0))
        self.classes = count if objective.startswith("multi:") else 2 if objective.startswith("binary:") else 0
        self._is_raw = objective == "binary:logitraw"
        if objective == "multi:softmax":  # it would give the classes alone
            objective = "multi:softprob"
        self._booster.set_param({"nthread": 1, "device": "cpu", "objective": objective})

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """What XGBoost predicts; of two classes, the second one's probability."""
        matrix = self._xgboost.DMatrix(rows, nthread=1)
        values = np.asarray(self._booster.predict(matrix, validate_features=False))
        return 1 / (1 + np.exp(-values)) if self._is_raw else values

    def made_with(self) -> dict[str, str]:
        """XGBoost's version when the file was written."""
        version = ".".join(str(part) for part in self._conf.get("version", ()))
        return {"xgboost": version} if version else {}


class LightgbmBooster(Booster):
    """A model of LightGBM's, asked on one thread."""

    library = "lightgbm"

    def __init__(self, data: bytes) -> None:
        lightgbm = library("lightgbm")
        self._booster = lightgbm.Booster(model_str=data.decode(), params={"num_threads": 1, "verbosity": -1})
        if self._booster.pandas_categorical:
            raise _unsupported("pandas' categorical columns")
        self.width = self._booster.num_feature()
        self.columns = _names(self._booster.feature_name(), self.width)
        objective = _objective(data)
        count = self._booster.num_model_per_iteration()
        self.classes = count if count > 1 else 2 if objective.startswith(("binary", "cross_entropy")) else 0

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """What LightGBM predicts; of two classes, the second one's probability."""
        return np.asarray(self._booster.predict(rows, num_threads=1))


def library(name: str) -> Any:
    """The imported library.

    Raises:
        ArtifactRejected: it is not installed here.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise lacking(name) from error


def lacking(name: str) -> ArtifactRejected:
    """What to tell an uploader whose model needs one of these libraries where it is not installed."""
    reason = f"The artifact needs {name}, which is not installed here; the operator adds it with the extra '{EXTRA}'."
    return ArtifactRejected("missing_library", reason)


def _names(names: Sequence[str], width: int) -> tuple[str, ...]:
    if len(names) != width or all(MADE_UP_NAME.fullmatch(name) for name in names):
        return ()
    return tuple(str(name) for name in names)


def _objective(text: bytes) -> str:
    found = re.search(rb"^objective=(.{1,100})$", text[: 1 << 16], re.MULTILINE)
    return found[1].decode(errors="replace") if found else ""


def _unsupported(what: str) -> ArtifactRejected:
    reason = f"The model was trained on {what}, which this file alone cannot encode; upload the pickled pipeline."
    return ArtifactRejected("unsupported_feature", reason)


class BoosterModel(Runtime):
    """A booster's own file."""

    library_set = "sklearn"

    def __init__(self, name: str, kind: type[Booster]) -> None:
        self.name, self._kind = name, kind

    def load(self, source: Source) -> BoosterPredictor:
        """The booster, ready to predict by the declared signature."""
        return BoosterPredictor(self._read(source), Signature.from_json(source.options["signature"]))

    def inspect(self, source: Source, on_stage: OnStage) -> Findings:
        """What the booster takes and gives, proved by predicting sample rows."""
        on_stage("loading")
        started = time.monotonic()
        booster = self._read(source)
        seconds = time.monotonic() - started
        on_stage("predicting a sample")
        signature, task = _find_signature(booster, source.options)
        return Findings(self.name, task, signature, "Booster", booster.made_with(), [], seconds)

    def _read(self, source: Source) -> Booster:
        data = source.bundle.read(source.path)
        try:
            return self._kind(data)
        except (ArtifactRejected, MemoryError):
            raise
        except Exception as error:  # each library has errors of its own for a file that it cannot read
            reason = f"{self._kind.library} cannot load it ({plain(error, 300)})."
            raise ArtifactRejected("unreadable_artifact", reason) from error


class BoosterPredictor:
    """A booster fed with an array, or with columns in its own order."""

    is_batchable = True

    def __init__(self, booster: Booster, signature: Signature) -> None:
        self._booster, self._signature = booster, signature
        self._table = ClassTable(signature.classes, ends_in_sigmoid=True) if signature.classes else None

    def predict(self, batch: Batch, *, probabilities: bool) -> Prediction:
        """Predict every row: its class, and probabilities on request; or its value."""
        scores = self._booster.scores(self._rows(batch))
        if self._table is not None:
            return self._table.prediction({PREDICTION: scores}, probabilities=probabilities)
        if probabilities:
            raise ValueError("the model has no classes, so it has no probabilities")
        return Prediction({PREDICTION: scores})

    def _rows(self, batch: Batch) -> np.ndarray:
        if not isinstance(batch, dict):
            return np.ascontiguousarray(batch, dtype=np.float64)
        names = self._booster.columns or tuple(field.name for field in self._signature.inputs)
        return np.column_stack([np.asarray(batch[name], dtype=np.float64) for name in names])


def _find_signature(booster: Booster, options: Mapping[str, Any]) -> tuple[Signature, Task]:
    draft, is_declared = _draft(booster, options)
    classes = _classes(booster, options, draft)
    known = Signature(draft.layout, draft.inputs, (), classes)
    told = "the columns that the model names"
    sample = _sample(draft, options)
    prediction = prove(
        BoosterPredictor(booster, known), sample, told, probabilities=bool(classes), is_declared=is_declared
    )
    outputs = tuple(examples.field_of(name, values) for name, values in prediction.outputs.items())
    return Signature(draft.layout, draft.inputs, outputs, classes), "classification" if classes else "regression"


def _draft(booster: Booster, options: Mapping[str, Any]) -> tuple[Signature, bool]:
    """The inputs, and whether somebody declared them. Trees know what to do with a missing value."""
    if options.get("signature"):
        return Signature.from_json(options["signature"]), True
    if booster.columns:
        fields = tuple(Field(name, "float64", (-1,), nullable=True) for name in booster.columns)
        return Signature("columns", fields, ()), False
    return Signature("tensor", (Field(INPUT_NAME, "float64", (-1, booster.width), nullable=True),), ()), False


def _sample(draft: Signature, options: Mapping[str, Any]) -> Batch:
    example = options.get("input_example")
    batch = examples.batch_from_example(example) if example is not None else None
    if batch is None or isinstance(batch, dict) != (draft.layout == "columns"):
        return examples.sample_batch(draft, SAMPLE_ROWS)
    return examples.cast(batch, draft)


def _classes(booster: Booster, options: Mapping[str, Any], draft: Signature) -> tuple[ClassName, ...] | None:
    """The declared names of the classes, or their numbers: a booster's file has no names."""
    declared = tuple(options.get("labels") or draft.classes or ())
    if declared and len(declared) != booster.classes:
        reason = f"The metadata names {len(declared)} labels, but the model has {booster.classes} classes."
        raise ArtifactRejected("labels_mismatch", reason)
    return declared or tuple(range(booster.classes)) or None


RUNTIMES: Mapping[str, Runtime] = {
    "xgboost": BoosterModel("xgboost", XgboostBooster),
    "lightgbm": BoosterModel("lightgbm", LightgbmBooster),
}
