"""How good predictions are beside the truth, and which columns a model needs for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics

from runtimes.measured import (
    CURVE_POINTS,
    MOST_CLASSES,
    MOST_COLUMNS,
    MOST_CURVES,
    MOST_MISSES,
    Confusion,
    Evaluation,
    Histogram,
    Importance,
    Miss,
    Roc,
)
from runtimes.trainers.trainer import Fitted, Kind

BINS = 20
SHUFFLES = 5
MOST_PREDICTIONS = 60_000  # of an importance: rows by columns by shuffles; it looks at no more rows than that allows
FEWEST_ROWS, MOST_ROWS = 50, 1_000


@dataclass(frozen=True)
class Judged:
    """Predictions beside the truth. probabilities: (rows, classes) in the order of classes, where there are any."""

    truth: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray | None = None
    classes: Sequence[Any] = ()


def judge(model: Fitted, features: pd.DataFrame, target: pd.Series, task: Kind) -> Judged:
    """What a model predicts for these rows."""
    if task == "regression":
        return Judged(target.to_numpy(), model.predict(features))
    table = model.predict_proba(features)
    classes = model.classes_.tolist()  # type: ignore[attr-defined]
    return Judged(target.to_numpy(), model.predict(features), table, classes)


def metrics_of(judged: Judged, task: Kind) -> dict[str, float]:
    """The task's metrics; one that the rows do not define (a held-out part with one class) is left out."""
    measured = _regression(judged) if task == "regression" else _classes(judged)
    return {name: float(value) for name, value in measured.items() if np.isfinite(value)}


def evaluation_of(parts: Sequence[Judged], task: Kind) -> Evaluation:
    """What is measured on held-out rows, or over the folds of a cross-validation."""
    each = [metrics_of(part, task) for part in parts]
    truth, predicted = (np.concatenate(found) for found in _columns_of(parts))
    whole = Judged(truth, predicted)
    return Evaluation(
        rows=len(whole.truth),
        metrics=mean_of(each),
        folds=each if len(each) > 1 else [],
        confusion=_confusion(whole) if task == "classification" else None,
        roc=_roc(parts) if task == "classification" else [],
        residuals=_residuals(whole) if task == "regression" else None,
        misses=_misses(whole) if task == "regression" else [],
    )


def mean_of(folds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric that every fold has."""
    names = [name for name in folds[0] if all(name in fold for fold in folds)] if folds else []
    return {name: float(np.mean([fold[name] for fold in folds])) for name in names}


def importance_of(model: Fitted, features: pd.DataFrame, target: pd.Series, task: Kind, seed: int) -> list[Importance]:
    """How much each column matters, the most important first; of a very wide table nothing is said."""
    columns = model.columns
    if not 1 < len(columns) <= MOST_COLUMNS:
        return []
    most = max(FEWEST_ROWS, min(MOST_ROWS, MOST_PREDICTIONS // (len(columns) * SHUFFLES)))
    rows, truth = features[columns].head(most).reset_index(drop=True), target.head(most).to_numpy()
    score = metrics.accuracy_score if task == "classification" else metrics.r2_score
    whole, random = score(truth, model.predict(rows)), np.random.default_rng(seed)
    told = []
    for name in columns:
        shuffled = pd.concat([_shuffled(rows, name, random) for _ in range(SHUFFLES)], ignore_index=True)
        losses = [whole - score(truth, part) for part in np.split(model.predict(shuffled), SHUFFLES)]
        if np.isfinite(losses).all():
            told.append(Importance(column=name, mean=float(np.mean(losses)), std=float(np.std(losses))))
    return sorted(told, key=lambda one: -one.mean)


def _shuffled(rows: pd.DataFrame, name: str, random: np.random.Generator) -> pd.DataFrame:
    return rows.assign(**{name: rows[name].to_numpy()[random.permutation(len(rows))]})


def _columns_of(parts: Sequence[Judged]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [part.truth for part in parts], [part.predicted for part in parts]


def _regression(judged: Judged) -> dict[str, float]:
    truth, predicted = judged.truth, judged.predicted
    found = {
        "mae": metrics.mean_absolute_error(truth, predicted),
        "rmse": metrics.root_mean_squared_error(truth, predicted),
    }
    return found | ({"r2": metrics.r2_score(truth, predicted)} if len(truth) > 1 else {})


def _classes(judged: Judged) -> dict[str, float]:
    """f1 is the second class's for two classes and the unweighted mean for more; roc_auc is one-vs-rest for more."""
    truth, predicted = judged.truth, judged.predicted
    classes = list(judged.classes)
    averaging = {"average": "binary", "pos_label": classes[1]} if len(classes) == 2 else {"average": "macro"}
    found = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "f1": metrics.f1_score(truth, predicted, labels=None, zero_division=0.0, **averaging),
    }
    if judged.probabilities is None or not set(truth.tolist()) <= set(classes):
        return found
    found["log_loss"] = metrics.log_loss(truth, judged.probabilities, labels=classes)
    if set(truth.tolist()) >= set(classes):
        found["roc_auc"] = _roc_auc(truth, judged.probabilities, classes)
    return found


def _roc_auc(truth: np.ndarray, table: np.ndarray, classes: list[Any]) -> float:
    if len(classes) == 2:
        return float(metrics.roc_auc_score(truth == classes[1], table[:, 1]))
    return float(metrics.roc_auc_score(truth, table, multi_class="ovr", labels=classes))


def _confusion(judged: Judged) -> Confusion | None:
    labels = sorted({*judged.truth.tolist(), *judged.predicted.tolist()})
    if len(labels) > MOST_CLASSES:
        return None
    counts = metrics.confusion_matrix(judged.truth, judged.predicted, labels=labels)
    return Confusion(labels=labels, counts=counts.tolist())


def _roc(parts: Sequence[Judged]) -> list[Roc]:
    """A curve over the rows of all parts, for each class that some rows are of and others are not."""
    classes = list(parts[0].classes)
    tables = [part.probabilities for part in parts if part.probabilities is not None and list(part.classes) == classes]
    if len(tables) < len(parts) or not 2 <= len(classes) <= MOST_CURVES:
        return []
    truth, table = np.concatenate([part.truth for part in parts]), np.concatenate(tables)
    if not np.isfinite(table).all():
        return []
    places = [1] if len(classes) == 2 else range(len(classes))
    curves = (_curve(classes[place], truth == classes[place], table[:, place]) for place in places)
    return [curve for curve in curves if curve]


def _curve(label: Any, is_own: np.ndarray, scores: np.ndarray) -> Roc | None:
    """None where every row is of the class, or none is. Of a curve with more corners than are kept, some of them."""
    if is_own.all() or not is_own.any():
        return None
    false_rates, true_rates, _ = metrics.roc_curve(is_own, scores)
    if len(false_rates) > CURVE_POINTS:
        kept = np.unique(np.linspace(0, len(false_rates) - 1, CURVE_POINTS).round().astype(int))
        false_rates, true_rates = false_rates[kept], true_rates[kept]
    return Roc(label=label, false_rates=false_rates.round(5).tolist(), true_rates=true_rates.round(5).tolist())


def _misses(judged: Judged) -> list[Miss]:
    """Of some rows, spread over all of them."""
    predicted, left = judged.predicted.astype(float), judged.truth.astype(float) - judged.predicted.astype(float)
    rows = np.flatnonzero(np.isfinite(predicted) & np.isfinite(left))
    chosen = rows[:: max(1, -(-len(rows) // MOST_MISSES))]
    return [Miss(predicted=float(predicted[row]), residual=float(left[row])) for row in chosen]


def _residuals(judged: Judged) -> Histogram:
    left = judged.truth.astype(float) - judged.predicted.astype(float)
    counts, edges = np.histogram(left[np.isfinite(left)], bins=BINS)
    return Histogram(edges=edges.tolist(), counts=counts.tolist())
