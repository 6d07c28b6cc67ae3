"""Measuring a version on a table: the rows leave this confined runner, and the predictions for them come in.

The model itself answers in a runner of its own and never meets the truth, so it cannot make its metrics up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from runtimes import arrays
from runtimes.bundle import FileSlice
from runtimes.errors import plain
from runtimes.evaluation import Judged, evaluation_of
from runtimes.measured import Evaluation
from runtimes.messages import Connection
from runtimes.signature import STRING, Batch, Field, Signature
from runtimes.table_files import InvalidDataset, table_file

ROWS, FIRST_ROWS = 1_000, 10
SLOW_S, QUICK_S = 0.5, 0.125
MOST_BYTES = 3 << 20  # of a batch; the other side takes a little more
MOST_ROWS = 1_000_000
PREDICTION, PROBABILITIES = "prediction", "probabilities"


def score(order: Mapping[str, Any], channel: Connection, dataset_fd: int) -> dict[str, Any]:
    """What the predictions that the client gives for the table's rows are worth, as JSON values.

    Raises:
        InvalidDataset: the table does not have what the signature names.
    """
    signature = Signature.from_json(order["signature"])
    target, task = str(order["target"]), str(order["task"])
    source = table_file(FileSlice.whole(dataset_fd), str(order["format"]))
    truths: list[Any] = []
    answers: list[dict[str, np.ndarray]] = []
    pace = Pace()
    for frame in source.frames(ROWS):
        truth = _truth(frame, target, task, len(truths))
        batch = batch_for(frame.drop(columns=target), signature)
        answers += _answers(channel, batch, len(truth), len(truths), pace)
        truths += truth
        if len(truths) > MOST_ROWS:
            raise InvalidDataset(f"The table has more than {MOST_ROWS:,} rows; evaluate on a part of it.")
    return {"evaluation": _evaluation(truths, answers, signature, task).model_dump()}


class Pace:
    """How many rows to ask for at once: so few that a slow model answers soon, as who cancels waits for an answer."""

    def __init__(self) -> None:
        self.rows = FIRST_ROWS

    def note(self, took_s: float) -> None:
        """Go on faster or more slowly after an answer that took so long."""
        if took_s > SLOW_S:
            self.rows = max(1, self.rows // 2)
        elif took_s < QUICK_S:
            self.rows = min(ROWS, 2 * self.rows)


def _answers(channel: Connection, batch: Batch, rows: int, before: int, pace: Pace) -> Iterator[dict[str, np.ndarray]]:
    """What the client answers to the rows of a batch, piece by piece. before: how many were asked before them."""
    at = 0
    while at < rows:
        end = min(rows, at + pace.rows)
        for part, count in _parts(_cut(batch, slice(at, end)), end - at):
            header, buffers = arrays.encode_batch(part)
            began = time.monotonic()
            channel.send({"rows": count, "done": before + at, **header}, buffers)
            yield _answer(channel, count)
            pace.note(time.monotonic() - began)
        at = end


def _truth(frame: pd.DataFrame, target: str, task: str, before: int) -> list[Any]:
    if target not in frame.columns:
        raise InvalidDataset(f"The dataset has no column {plain(target, 80)!r}.")
    column = frame[target]
    if column.isna().any():
        row = before + int(column.isna().to_numpy().argmax()) + 1
        raise InvalidDataset(f"Row {row}, column {plain(target, 80)!r}: the target is missing.")
    if task == "regression":
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.isna().any():
            raise InvalidDataset(f"Column {plain(target, 80)!r} is not made of numbers.")
        return list(numbers.astype(float))
    return [key_of(value) for value in column.tolist()]


def key_of(value: object) -> str:
    """A class as text: whether a file says 1, 1.0 or "1", it is the same class."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def batch_for(frame: pd.DataFrame, signature: Signature) -> Batch:
    """The rows as the signature's inputs.

    Raises:
        InvalidDataset: a column is not there, or holds what its input does not take.
    """
    if signature.layout == "columns":
        return {field.name: _column(frame, field) for field in signature.inputs}
    field = signature.inputs[0]
    if len(field.shape) != 2 or field.shape[1] not in (-1, len(frame.columns)):
        raise InvalidDataset(
            f"The model takes rows of the shape {list(field.shape[1:])}, and the dataset has "
            f"{len(frame.columns)} columns beside the target."
        )
    named = [Field(str(name), field.dtype, (-1,), field.nullable) for name in frame.columns]
    return np.column_stack([_column(frame, one) for one in named])


def _column(frame: pd.DataFrame, field: Field) -> np.ndarray:
    if field.name not in frame.columns:
        raise InvalidDataset(f"The dataset lacks the column {plain(field.name, 80)!r}, which the model takes.")
    column = frame[field.name]
    if field.dtype == STRING:
        return np.array([None if pd.isna(value) else str(value) for value in column] or [], dtype=object)
    try:
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        if np.isnan(numbers).any() and not field.dtype.startswith("float"):
            raise InvalidDataset(f"Column {plain(field.name, 80)!r} has missing values, which the model does not take.")
        return numbers.astype(field.dtype)
    except (ValueError, TypeError) as error:
        raise InvalidDataset(f"Column {plain(field.name, 80)!r} holds something else than {field.dtype}.") from error


def _parts(batch: Batch, rows: int) -> Iterator[tuple[Batch, int]]:
    """The batch in pieces that are small enough to send."""
    _, buffers = arrays.encode_batch(batch)
    if sum(buffer.nbytes for buffer in buffers) <= MOST_BYTES or rows <= 1:
        yield batch, rows
        return
    half = rows // 2
    yield from _parts(_cut(batch, slice(0, half)), half)
    yield from _parts(_cut(batch, slice(half, rows)), rows - half)


def _cut(batch: Batch, rows: slice) -> Batch:
    return {name: column[rows] for name, column in batch.items()} if isinstance(batch, dict) else batch[rows]


def _answer(channel: Connection, rows: int) -> dict[str, np.ndarray]:
    frame = channel.receive()
    found, _ = arrays.decode(frame.header["arrays"], frame.body, rows=rows)
    return {name: np.array(values) for name, values in found.items()}


def _evaluation(truths: list[Any], answers: list[dict[str, np.ndarray]], signature: Signature, task: str) -> Evaluation:
    predicted = np.concatenate([answer[PREDICTION].ravel() for answer in answers])
    if task == "regression":
        return evaluation_of([Judged(np.array(truths), predicted.astype(float))], "regression")
    keys = [key_of(value) for value in predicted.tolist()]
    known = [key_of(name) for name in signature.classes or sorted({*truths, *keys})]
    names = list(dict.fromkeys([*known, *sorted({*truths, *keys})]))  # the truth may have classes that the model lacks
    places = {name: place for place, name in enumerate(names)}
    has_table = all(PROBABILITIES in answer for answer in answers)
    table = np.concatenate([answer[PROBABILITIES] for answer in answers]) if has_table else None
    judged = Judged(
        np.array([places[name] for name in truths]), np.array([places[name] for name in keys]), table, range(len(known))
    )
    found = evaluation_of([judged], "classification")
    roc = [curve.model_copy(update={"label": names[int(curve.label)]}) for curve in found.roc]
    if found.confusion is None:
        return found.model_copy(update={"roc": roc})
    labels = [names[int(label)] for label in found.confusion.labels]
    confusion = found.confusion.model_copy(update={"labels": labels})
    return found.model_copy(update={"confusion": confusion, "roc": roc})
