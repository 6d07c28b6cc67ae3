"""A fit, inside its runner: read the table, hold rows out, fit, measure, send the artifact back in pieces."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from runtimes.bundle import FileSlice
from runtimes.errors import ModelError, plain
from runtimes.evaluation import Judged, evaluation_of, importance_of, judge, mean_of, metrics_of
from runtimes.frames import cells_of
from runtimes.measured import Evaluation
from runtimes.messages import Connection
from runtimes.tables import InvalidDataset, Table, read_table
from runtimes.trainers import TRAINERS, Trainer
from runtimes.trainers.trainer import Fitted

CHUNK_BYTES = 1 << 20
LEAST_EXAMPLE_ROWS, MOST_EXAMPLE_ROWS, MOST_EXAMPLE_CELLS = 3, 20, 2_000
MAX_CLASSES = 1_000
FITTING_FROM, FITTING_TO = 10.0, 85.0
DEFAULT_FRACTION, DEFAULT_FOLDS = 0.2, 5
LOOKED_AT = 2_000  # held-out rows that a model in the making is judged on


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
    table = _read(dataset_fd, order, trainer)
    validation = dict(order.get("validation") or {})
    fit_all = _cross_validated if validation.get("kind") == "kfold" else _held_out
    model, evaluation = fit_all(trainer, table, validation, _Telling(channel, trainer, str(order.get("watch") or "")))
    _report(channel, 90.0, "saving", evaluation.metrics)
    report = _describe(model, table.features, trainer)
    model.save(_Sender(channel))
    return {**report, "metrics": evaluation.metrics, "evaluation": evaluation.model_dump()}


def _held_out(
    trainer: Trainer, table: Table, validation: Mapping[str, Any], telling: _Telling
) -> tuple[Fitted, Evaluation]:
    """The model fitted on most rows and measured on the others."""
    split = _split(table, trainer, validation)
    model = _fit(trainer, split.train, telling.on(split.held_out))
    telling.stage(FITTING_TO, "evaluating")
    if split.held_out is None:
        return model, Evaluation()
    features, target = split.held_out.features, split.held_out.target
    found = evaluation_of([judge(model, features, target, trainer.task)], trainer.task)
    if not validation.get("importance", True):
        return model, found
    importance = importance_of(model, features, target, trainer.task, int(validation.get("seed", 0)))
    return model, found.model_copy(update={"importance": importance})


def _cross_validated(
    trainer: Trainer, table: Table, validation: Mapping[str, Any], telling: _Telling
) -> tuple[Fitted, Evaluation]:
    """The model fitted on all rows, and what as many models as there are folds measured on the rest of them."""
    seed, judged = int(validation.get("seed", 0)), list[Judged]()
    importance: Any = []
    wants_importance = validation.get("importance", True)
    splits = list(_folds(table, trainer, int(validation.get("folds", DEFAULT_FOLDS)), seed))
    for number, split in enumerate(splits):
        model = _fit(trainer, split.train, telling.part(number, len(splits) + 1))
        assert split.held_out is not None
        features, target = split.held_out.features, split.held_out.target
        judged.append(judge(model, features, target, trainer.task))
        if wants_importance and not importance:
            importance = importance_of(model, features, target, trainer.task, seed)
        so_far = mean_of([metrics_of(one, trainer.task) for one in judged])
        telling.tell(number + 1, len(splits) + 1, f"fold {number + 1} of {len(splits)}", so_far)
    model = _fit(trainer, table, telling.part(len(splits), len(splits) + 1))
    telling.stage(FITTING_TO, "evaluating")
    return model, evaluation_of(judged, trainer.task).model_copy(update={"importance": importance})


class _Telling:
    """Tells the client how far a fit is, and what its model is worth so far if the client watches a metric."""

    def __init__(self, channel: Connection, trainer: Trainer, metric: str) -> None:
        self._channel, self._trainer, self._metric = channel, trainer, metric

    def stage(self, percent: float, stage: str) -> None:
        """Tell a new stage."""
        _report(self._channel, percent, stage)

    def tell(self, done: float, parts: int, stage: str, metrics: Mapping[str, float] | None = None) -> None:
        """Tell that so many of the parts are done."""
        _report(self._channel, FITTING_FROM + done / parts * (FITTING_TO - FITTING_FROM), stage, metrics)

    def part(self, number: int, parts: int) -> Any:
        """What one of several fits reports to."""

        def report(fraction: float, *, model: Any = None, metrics: Any = None) -> None:
            self.tell(number + fraction, parts, "fitting")

        self.tell(number, parts, "fitting")
        return report

    def on(self, held_out: Table | None) -> Any:
        """What a single fit reports to."""

        def report(fraction: float, *, model: Any = None, metrics: Any = None) -> None:
            self.tell(fraction, 1, "fitting", {**(metrics or {}), **self._so_far(model, held_out)})

        self.tell(0, 1, "fitting")
        return report

    def _so_far(self, model: Fitted | None, held_out: Table | None) -> dict[str, float]:
        if not self._metric or model is None or held_out is None:
            return {}
        rows = held_out.features.head(LOOKED_AT), held_out.target.head(LOOKED_AT)
        found = metrics_of(judge(model, *rows, self._trainer.task), self._trainer.task)
        return {self._metric: found[self._metric]} if self._metric in found else {}


def _fit(trainer: Trainer, train: Table, watch: Any) -> Fitted:
    try:
        return trainer.fit(train.features, train.target, watch)
    except ValueError as error:
        raise ModelError(plain(f"The fit failed: {error}"), "fit_failed") from error


def _trainer(order: Mapping[str, Any]) -> Trainer:
    kind = TRAINERS.get(str(order["trainer"]))
    if kind is None:
        raise ModelError("There is no such trainer.", "unknown_trainer")
    try:
        return kind(kind.Params.model_validate(dict(order["params"])))
    except ValueError as error:
        raise ModelError(plain(error), "invalid_parameter") from error


def _read(dataset_fd: int, order: Mapping[str, Any], trainer: Trainer) -> Table:
    file = FileSlice.whole(dataset_fd)
    is_numeric = trainer.task == "regression"
    format_name = str(order.get("format") or "csv")
    table = read_table(file, str(order["target"]), is_numeric_target=is_numeric, format_name=format_name)
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


def _folds(table: Table, trainer: Trainer, folds: int, seed: int) -> Iterator[Split]:
    """The table split so many times, each row held out once; classes in proportion, where each has rows enough."""
    is_classes = trainer.task == "classification"
    is_stratified = is_classes and table.target.value_counts().min() >= folds
    kind = StratifiedKFold if is_stratified else KFold
    try:
        parts = list(kind(folds, shuffle=True, random_state=seed).split(np.arange(len(table.target)), table.target))
    except ValueError as error:
        raise InvalidDataset(f"The table cannot be split: {plain(error, 200)}") from error
    for train, held_out in parts:
        if is_classes and table.target.iloc[train].nunique() < 2:
            raise InvalidDataset("The rows left for fitting have one class only.")
        yield Split(_rows(table, train), _rows(table, held_out))


def _describe(model: Fitted, features: pd.DataFrame, trainer: Trainer) -> dict[str, Any]:
    rows = min(MOST_EXAMPLE_ROWS, MOST_EXAMPLE_CELLS // max(len(model.columns), 1))
    example = features[model.columns].head(max(LEAST_EXAMPLE_ROWS, rows))
    signature = model.signature(example)
    cells = cells_of(example)
    return {
        "format": model.format,
        "task": trainer.task,
        "signature": signature.to_json(),
        "input_example": cells if signature.layout == "tensor" else {"columns": model.columns, "data": cells},
        "artifact_name": model.file_name,
        "declared": dict(model.declared()),
        "libraries": _versions(trainer.requires),
    }


def _versions(modules: tuple[str, ...]) -> dict[str, str]:
    found = {}
    owners = importlib.metadata.packages_distributions() if modules else {}
    for module in modules:
        for name in owners.get(module, ())[:1]:
            found[name] = importlib.metadata.version(name)
    return found


class _Sender:
    """A file that is only written to; its bytes leave in frames as they come."""

    def __init__(self, channel: Connection) -> None:
        self._channel = channel

    def write(self, data: Any) -> int:
        """Send the bytes."""
        view = memoryview(data).cast("B")
        for start in range(0, view.nbytes, CHUNK_BYTES):
            self._channel.send({"artifact": True}, [view[start : start + CHUNK_BYTES]])
        return view.nbytes

    def flush(self) -> None:
        """Nothing waits."""


def _report(channel: Connection, percent: float, stage: str, metrics: Mapping[str, float] | None = None) -> None:
    channel.send({"percent": percent, "stage": stage, **({"metrics": dict(metrics)} if metrics else {})})
