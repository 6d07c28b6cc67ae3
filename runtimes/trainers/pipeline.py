"""A preparation and an estimator as one fitted model: a scikit-learn pipeline in a pickle."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from runtimes import examples, portable
from runtimes.formats.scikit_learn import EstimatorPredictor, class_names
from runtimes.frames import batch_of, field_of
from runtimes.signature import Signature

# Whoever downloads a model has scikit-learn and none of this project, so its own functions travel in the artifact.
cloudpickle.register_pickle_by_value(portable)


class FittedPipeline:
    """What an EstimatorTrainer makes."""

    file_name, format = "model.pkl", "sklearn"

    def __init__(self, prepare: Any, estimator: Any, columns: list[str]) -> None:
        self._pipeline = Pipeline([("prepare", prepare), ("model", estimator)])
        self.columns = columns

    @property
    def classes_(self) -> Any:
        """A classifier's classes."""
        return self._pipeline.classes_

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """One number or class a row."""
        return np.asarray(self._pipeline.predict(features[self.columns]))

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
        """A classifier's probabilities."""
        return np.asarray(self._pipeline.predict_proba(features[self.columns]))

    def signature(self, features: pd.DataFrame) -> Signature:
        """Its columns, and what a prediction of these rows gives."""
        inputs = tuple(field_of(features[name]) for name in self.columns)
        classes = class_names(self._pipeline) if hasattr(self._pipeline, "predict_proba") else None
        draft = Signature("columns", inputs, (), classes)
        batch = batch_of(features[self.columns])
        outputs = EstimatorPredictor(self._pipeline, draft).predict(batch, probabilities=False).outputs
        return Signature("columns", inputs, tuple(examples.field_of(*output) for output in outputs.items()), classes)

    def declared(self) -> Mapping[str, Any]:
        """Nothing: a pipeline says it all itself."""
        return {}

    def save(self, file: Any) -> None:
        """Pickle the pipeline; plainly, where it holds nothing but scikit-learn's own."""
        dump = cloudpickle.dump if _travels(self._pipeline) else pickle.dump
        dump(self._pipeline, file, protocol=5)


def _travels(pipeline: Pipeline) -> bool:
    """Whether the preparation has functions of this project in it."""
    return any(
        getattr(function, "__module__", "") == portable.__name__
        for _, transformer, _ in pipeline.named_steps["prepare"].transformers
        for _, step in getattr(transformer, "steps", ())
        for function in [getattr(step, "func", None)]
    )
