"""A fit, inside its runner: read the table, hold rows out, fit, measure, send the artifact back in pieces."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline

from runtimes import examples
from runtimes.bundle import FileSlice
from runtimes.errors import ModelError, plain
from runtimes.evaluation import evaluate
from runtimes.formats.scikit_learn import EstimatorPredictor, class_names
from runtimes.messages import Connection
from runtimes.preparation import transformer
from runtimes.signature import STRING, Batch, Field, Signature
from runtimes.tables import InvalidDataset, Table, read_table
from runtimes.trainers import TRAINERS, Trainer

ARTIFACT_NAME = "model.pkl"
CHUNK_BYTES = 1 << 20
EXAMPLE_ROWS = 3
MAX_CLASSES = 1_000
FITTING_FROM, FITTING_TO = 10.0, 85.0
DEFAULT_FRACTION = 0.2


@dataclass(frozen=True)
class Split:
    """Rows to fit on and rows held out; without validation nothing is held out."""

    train: Table
    held_out: Table | None


def fit(order: Mapping[str, Any], channel: Connection, dataset_fd: int) -> dict[str, Any]:
    """The report of one fit, its progress and its artifact sent on the channel before.

    Raises:
        ModelError: the table or the parameters cannot be fitted.
    """
    trainer = _trainer(order)
    _report(channel, 0.0, "reading")
    table = _read(dataset_fd, str(order["target"]), trainer)
    split = _split(table, trainer, order.get("validation") or {})
    model = _fit_pipeline(trainer, split.train, channel)
    _report(channel, FITTING_TO, "evaluating")
    metrics = {} if split.held_out is None else evaluate(model, *_parts(split.held_out), trainer.task)
    _report(channel, 90.0, "saving", metrics)
    report = _describe(model, split.train.features, trainer)
    _send_artifact(model, channel)
    return {**report, "metrics": metrics}


def _trainer(order: Mapping[str, Any]) -> Trainer:
    kind = TRAINERS.get(str(order["trainer"]))
    if kind is None:
        raise ModelError("There is no such trainer.", "unknown_trainer")
    try:
        return kind(kind.Params.model_validate(dict(order["params"])))
    except ValueError as error:
        raise ModelError(plain(error), "invalid_parameter") from error


def _read(dataset_fd: int, target: str, trainer: Trainer) -> Table:
    file = FileSlice.whole(dataset_fd)
    table = read_table(file, target, is_numeric_target=trainer.task == "regression")
    if trainer.task == "classification":
        _check_classes(table.target)
    return table


def _check_classes(target: pd.Series) -> None:
    count = target.nunique()
    if count < 2:
        raise InvalidDataset("The target has one class only; there is nothing to tell apart.")
    if count > MAX_CLASSES or (count > 20 and count > len(target) / 2):
        raise InvalidDataset(f"The target has {count} different values; that is a task for a regression.")


def _split(table: Table, trainer: Trainer, validation: Mapping[str, Any]) -> Split:
    if validation.get("kind", "holdout") == "none":
        return Split(table, None)
    fraction, seed = float(validation.get("fraction", DEFAULT_FRACTION)), int(validation.get("seed", 0))
    rows = np.arange(len(table.target))
    try:
        train, held_out = train_test_split(
            rows, test_size=fraction, random_state=seed, stratify=_strata(table, trainer, fraction)
        )
    except ValueError as error:
        raise InvalidDataset(f"The table cannot be split: {plain(error, 200)}") from error
    if trainer.task == "classification" and table.target.iloc[train].nunique() < 2:
        raise InvalidDataset("The rows left for fitting have one class only.")
    return Split(_rows(table, train), _rows(table, held_out))


def _strata(table: Table, trainer: Trainer, fraction: float) -> pd.Series | None:
    """The classes to keep in proportion, where each has rows enough for both parts."""
    if trainer.task == "regression":
        return None
    rarest, classes = table.target.value_counts().min(), table.target.nunique()
    smaller_part = min(fraction, 1 - fraction) * len(table.target)
    return table.target if rarest >= 2 and smaller_part >= classes else None


def _rows(table: Table, rows: np.ndarray) -> Table:
    return Table(table.features.iloc[rows], table.target.iloc[rows])


def _parts(table: Table) -> tuple[pd.DataFrame, pd.Series]:
    return table.features, table.target


def _fit_pipeline(trainer: Trainer, train: Table, channel: Connection) -> Pipeline:
    _report(channel, FITTING_FROM, "fitting")
    prepare = transformer(train.features, trainer.preparation)
    try:
        rows = np.asarray(prepare.fit_transform(train.features), dtype=np.float64)
        estimator = trainer.fit(rows, train.target.to_numpy(), _progress_of_fitting(channel))
    except ValueError as error:
        raise ModelError(plain(f"The fit failed: {error}"), "fit_failed") from error
    return Pipeline([("prepare", prepare), ("model", estimator)])


def _progress_of_fitting(channel: Connection) -> Any:
    def report(fraction: float) -> None:
        _report(channel, FITTING_FROM + fraction * (FITTING_TO - FITTING_FROM), "fitting")

    return report


def _describe(model: Pipeline, features: pd.DataFrame, trainer: Trainer) -> dict[str, Any]:
    inputs = tuple(_field(features[name]) for name in features.columns)
    example = features.head(EXAMPLE_ROWS)
    draft = Signature("columns", inputs, (), class_names(model) if trainer.task == "classification" else None)
    outputs = EstimatorPredictor(model, draft).predict(_batch(example), probabilities=False).outputs
    fields = tuple(examples.field_of(name, values) for name, values in outputs.items())
    return {
        "format": "sklearn",
        "task": trainer.task,
        "signature": Signature("columns", inputs, fields, draft.classes).to_json(),
        "input_example": {"columns": list(features.columns), "data": _cells(example)},
        "artifact_name": ARTIFACT_NAME,
    }


def _field(column: pd.Series) -> Field:
    dtype = STRING if column.dtype == object else column.dtype.name
    return Field(str(column.name), dtype, (-1,), nullable=dtype != "bool")


def _batch(frame: pd.DataFrame) -> Batch:
    rows = _cells(frame)
    texts = {name for name in frame.columns if frame[name].dtype == object}
    return {
        str(name): np.array([row[place] for row in rows], dtype=object) if name in texts else frame[name].to_numpy()
        for place, name in enumerate(frame.columns)
    }


def _cells(frame: pd.DataFrame) -> list[list[Any]]:
    rows = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    return [list(row) for row in rows]


class _Sender:
    """A file that only pickle writes to; its bytes leave in frames as they come."""

    def __init__(self, channel: Connection) -> None:
        self._channel = channel

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, view.nbytes, CHUNK_BYTES):
            self._channel.send({"artifact": True}, [view[start : start + CHUNK_BYTES]])
        return view.nbytes


def _send_artifact(model: Pipeline, channel: Connection) -> None:
    pickle.dump(model, _Sender(channel), protocol=5)


def _report(channel: Connection, percent: float, stage: str, metrics: Mapping[str, float] | None = None) -> None:
    channel.send({"percent": percent, "stage": stage, **({"metrics": dict(metrics)} if metrics else {})})
