"""scikit-learn models in pickle, joblib (compressed or not) and cloudpickle files."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

import joblib
import numpy as np
import pandas as pd
import sklearn
from sklearn.base import is_classifier, is_regressor

from runtimes import examples
from runtimes.errors import ArtifactRejected, plain
from runtimes.formats import columns
from runtimes.formats.notices import notices
from runtimes.formats.outputs import named_arrays, prove, text_or_numbers
from runtimes.protocol import Findings, OnStage, Prediction, Runtime, Source, Task
from runtimes.signature import Batch, ClassName, Field, Signature

ROW_BY_ROW = ("sklearn.", "xgboost.", "lightgbm.")  # whose estimators predict each row for itself


class Loaded:
    """A model as it came out of its file, with what was noticed on the way."""

    def __init__(self, model: Any, notes: list[str], made_with: dict[str, str], seconds: float) -> None:
        self.model, self.warnings, self.made_with, self.load_seconds = model, notes, made_with, seconds


class PickledModel(Runtime):
    """Pickles of scikit-learn estimators, and of anything that has their `predict`."""

    name = "sklearn"
    library_set = "sklearn"

    def load(self, source: Source) -> EstimatorPredictor:
        """The estimator in the file, ready to predict by the declared signature."""
        signature = Signature.from_json(source.options["signature"])
        return EstimatorPredictor(self.read(source).model, signature, has_labels=bool(source.options.get("labels")))

    def inspect(self, source: Source, on_stage: OnStage) -> Findings:
        """What the estimator takes and gives, proved by predicting a sample row."""
        on_stage("loading")
        loaded = self.read(source)
        on_stage("predicting a sample")
        return inspect_estimator(loaded, source.options, self.name)

    def read(self, source: Source) -> Loaded:
        """Unpickle the file and refuse what cannot predict."""
        started = time.monotonic()
        with warnings.catch_warnings(record=True) as caught, source.bundle.open(source.path) as file:
            warnings.simplefilter("always")
            model = joblib.load(file)
        return checked(model, caught, time.monotonic() - started)


def checked(model: Any, caught: list[warnings.WarningMessage], seconds: float) -> Loaded:
    """The loaded model with its warnings and the version that made it.

    Raises:
        ArtifactRejected: it has no `predict`.
    """
    if not callable(getattr(model, "predict", None)):
        kind = plain(type(model).__name__, 80)
        raise ArtifactRejected(
            "no_predict_method", f"The file holds an object of type {kind}, which has no predict method."
        )
    return Loaded(model, notices(caught), _made_with(model, caught), seconds)


def _made_with(model: Any, caught: list[warnings.WarningMessage]) -> dict[str, str]:
    for warning in caught:
        version = getattr(warning.message, "original_sklearn_version", None)  # since scikit-learn 1.3
        if version is not None:
            return {"scikit-learn": plain(version, 40)}
    is_own = type(model).__module__.startswith("sklearn.")
    return {"scikit-learn": sklearn.__version__} if is_own else {}


class EstimatorPredictor:
    """Anything with scikit-learn's `predict`, fed with arrays or with a frame of named columns."""

    compiler = "runtimes.compilation.from_sklearn"

    def __init__(self, model: Any, signature: Signature, *, has_labels: bool = False) -> None:
        self.model, self._signature = model, signature
        self._labels = dict(zip(class_names(model) or (), signature.classes or (), strict=False)) if has_labels else {}
        self.is_batchable = type(model).__module__.startswith(ROW_BY_ROW)

    def predict(self, batch: Batch, *, probabilities: bool) -> Prediction:
        """Predict every row; with probabilities, a classifier's `predict_proba` besides."""
        rows = frame(batch) if isinstance(batch, dict) else batch
        outputs = named_arrays(self.model.predict(rows))
        if self._labels:
            outputs = {name: self._labelled(values) for name, values in outputs.items()}
        return Prediction(outputs, self._probabilities(rows) if probabilities else None)

    def _labelled(self, values: np.ndarray) -> np.ndarray:
        return text_or_numbers([self._labels.get(value, value) for value in values.ravel().tolist()], values.shape)

    def _probabilities(self, rows: Any) -> np.ndarray:
        if not hasattr(self.model, "predict_proba"):
            raise ValueError(f"{type(self.model).__name__} has no probabilities")
        values = np.asarray(self.model.predict_proba(rows), dtype=np.float64)
        if values.ndim != 2:
            raise ValueError("a model with several targets has no single table of probabilities")
        return values


def frame(batch: dict[str, np.ndarray]) -> pd.DataFrame:
    """A DataFrame of the columns; missing strings are NaN, as pandas reads them from a file."""
    return pd.DataFrame(
        {name: _with_nan(column) if column.dtype == object else column for name, column in batch.items()}
    )


def _with_nan(column: np.ndarray) -> pd.Series:
    return pd.Series([np.nan if value is None else value for value in column.tolist()], dtype=object)


def class_names(model: Any) -> tuple[ClassName, ...] | None:
    """The classes of a fitted classifier with one target, as plain values."""
    classes = getattr(model, "classes_", None)
    if not isinstance(classes, np.ndarray) or classes.ndim != 1 or not 0 < len(classes) <= 100_000:
        return None
    return tuple(value if isinstance(value, str | int | float) else str(value) for value in classes.tolist())


def task_of(model: Any) -> Task:
    """What kind of question the model answers."""
    try:
        if is_classifier(model):
            return "classification"
        if is_regressor(model):
            return "regression"
    except AttributeError:  # an object without scikit-learn's tags
        pass
    return "classification" if hasattr(model, "predict_proba") else "other"


def inspect_estimator(loaded: Loaded, options: Mapping[str, Any], format_name: str) -> Findings:
    """Find the signature (declared, from the example, or inferred) and prove it by a prediction."""
    model = loaded.model
    task = task_of(model)
    inputs, sample, is_declared = _inputs(model, options)
    classes = _declared_classes(model, options) if task == "classification" else None
    draft = Signature("columns" if isinstance(sample, dict) else "tensor", inputs, (), classes)
    predictor = EstimatorPredictor(model, draft, has_labels=bool(options.get("labels")))
    has_several_targets = isinstance(getattr(model, "classes_", None), list)  # then it has a table for each of them
    has_probabilities = task == "classification" and hasattr(model, "predict_proba") and not has_several_targets
    told = "the inputs that the model names"
    prediction = prove(predictor, sample, told, probabilities=has_probabilities, is_declared=is_declared)
    # MLflow's signatures do not say whether a model copes with missing values: trying does
    is_open = not is_declared or bool(options.get("is_signature_of_artifact"))
    nullable = columns.nullable_fields(predictor, inputs, sample) if is_open else inputs
    outputs = tuple(examples.field_of(name, values) for name, values in prediction.outputs.items())
    signature = Signature(draft.layout, nullable, outputs, classes)
    kind = plain(getattr(model, "type_name", None) or type(columns.last_step(model)).__name__, 80)
    return Findings(format_name, task, signature, kind, loaded.made_with, loaded.warnings, loaded.load_seconds)


def _inputs(model: Any, options: Mapping[str, Any]) -> tuple[tuple[Field, ...], Batch, bool]:
    """The input fields, a sample batch for them, and whether somebody declared them."""
    example = options.get("input_example")
    batch = examples.batch_from_example(example) if example is not None else None
    inferred = columns.infer(model)
    if options.get("signature"):
        declared = Signature.from_json(options["signature"])
        texts = inferred.texts if inferred is not None else {}
        sample = examples.sample_batch(declared, texts=texts) if batch is None else examples.cast(batch, declared)
        return declared.inputs, sample, True
    if inferred is not None:
        draft = Signature(*inferred.layout_and_inputs, ())
        return draft.inputs, examples.sample_batch(draft, texts=inferred.texts), False
    if batch is None:
        raise ArtifactRejected(
            "signature_needed", "The model does not say what it takes; send a signature or an input_example with it."
        )
    return examples.fields_of(batch), batch, False


def _declared_classes(model: Any, options: Mapping[str, Any]) -> tuple[ClassName, ...] | None:
    own, labels = class_names(model), options.get("labels")
    if not labels:
        return own
    if own is not None and len(labels) != len(own):
        reason = f"The metadata names {len(labels)} labels, but the model has {len(own)} classes."
        raise ArtifactRejected("labels_mismatch", reason)
    return tuple(labels)


RUNTIMES: Mapping[str, Runtime] = {"sklearn": PickledModel()}
