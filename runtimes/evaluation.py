"""How good a fitted model is on rows that it has not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics

from runtimes.trainers.trainer import Kind


def evaluate(model: Any, features: pd.DataFrame, target: pd.Series, task: Kind) -> dict[str, float]:
    """The task's metrics; one that the rows do not define (a held-out part with one class) is left out."""
    measured = _regression(model, features, target) if task == "regression" else _classes(model, features, target)
    return {name: float(value) for name, value in measured.items() if np.isfinite(value)}


def _regression(model: Any, features: pd.DataFrame, target: pd.Series) -> dict[str, float]:
    predicted = model.predict(features)
    found = {
        "mae": metrics.mean_absolute_error(target, predicted),
        "rmse": metrics.root_mean_squared_error(target, predicted),
    }
    return found | ({"r2": metrics.r2_score(target, predicted)} if len(target) > 1 else {})


def _classes(model: Any, features: pd.DataFrame, target: pd.Series) -> dict[str, float]:
    """f1 is the second class's for two classes and the unweighted mean for more; roc_auc is one-vs-rest for more."""
    predicted, table = model.predict(features), model.predict_proba(features)
    classes = list(model.classes_)
    is_binary = len(classes) == 2
    averaging = {"average": "binary", "pos_label": classes[1]} if is_binary else {"average": "macro"}
    found = {
        "accuracy": metrics.accuracy_score(target, predicted),
        "f1": metrics.f1_score(target, predicted, zero_division=0.0, **averaging),
        "log_loss": metrics.log_loss(target, table, labels=classes),
    }
    if set(target) >= set(classes):
        found["roc_auc"] = _roc_auc(target, table, classes)
    return found


def _roc_auc(target: pd.Series, table: np.ndarray, classes: list[Any]) -> float:
    if len(classes) == 2:
        return float(metrics.roc_auc_score(target == classes[1], table[:, 1]))
    return float(metrics.roc_auc_score(target, table, multi_class="ovr", labels=classes))
