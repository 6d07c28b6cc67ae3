"""Sample rows: from a declared example, or made up from a signature's fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runtimes.errors import ArtifactRejected
from runtimes.signature import STRING, Batch, Field, Signature

UNKNOWN_SIZE = 8  # what stands for a -1 behind the rows


def _unreadable() -> ArtifactRejected:
    return ArtifactRejected(
        "invalid_input_example",
        "The input_example is neither rows, nor columns by name, nor {columns, data}.",
    )


def batch_from_example(example: object) -> Batch:
    """The batch that a JSON example describes: a row, rows, records, columns by name, or {columns, data}.

    Raises:
        ArtifactRejected: it is none of these.
    """
    if isinstance(example, Mapping):
        if {"columns", "data"} <= example.keys():
            rows = list(example["data"])
            return _columns({name: [row[place] for row in rows] for place, name in enumerate(example["columns"])})
        return _columns({name: value if isinstance(value, list) else [value] for name, value in example.items()})
    if not isinstance(example, Sequence) or isinstance(example, str) or not example:
        raise _unreadable()
    if isinstance(example[0], Mapping):
        return _columns({name: [row.get(name) for row in example] for name in example[0]})
    return _tensor(example if isinstance(example[0], list | tuple) else [example])


def _columns(values: Mapping[str, list[Any]]) -> dict[str, np.ndarray]:
    columns = {str(name): _column(column) for name, column in values.items()}
    if not columns or len({len(column) for column in columns.values()}) != 1:
        raise _unreadable()
    return columns


def _column(values: list[Any]) -> np.ndarray:
    if all(isinstance(value, int | float | None) for value in values):
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    column = np.empty(len(values), dtype=object)
    column[:] = [None if value is None else str(value) for value in values]
    return column


def _tensor(rows: object) -> np.ndarray:
    try:
        return np.asarray(rows, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise _unreadable() from error


def fields_of(batch: Batch) -> tuple[Field, ...]:
    """The input fields that a sample batch suggests."""
    if isinstance(batch, dict):
        return tuple(field_of(name, column) for name, column in batch.items())
    return (field_of("input", batch),)


def field_of(name: str, array: np.ndarray) -> Field:
    """The field that an array suggests; object arrays are strings."""
    dtype = STRING if array.dtype.kind in "OUS" else array.dtype.name
    missing = dtype == STRING and None in array.ravel().tolist()
    return Field(name, dtype, (-1, *array.shape[1:]), bool(missing or (dtype != STRING and _has_nan(array))))


def _has_nan(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and bool(np.isnan(array).any())


def sample_batch(signature: Signature, rows: int = 1, texts: Mapping[str, str] | None = None) -> Batch:
    """A batch of zeros and words that fits the signature; texts: a known word for a string column."""
    arrays = {field.name: _sample(field, rows, (texts or {}).get(field.name, "a")) for field in signature.inputs}
    return arrays if signature.layout == "columns" else arrays[signature.inputs[0].name]


def _sample(field: Field, rows: int, text: str) -> np.ndarray:
    shape = (rows, *(UNKNOWN_SIZE if size == -1 else size for size in field.shape[1:]))
    if field.dtype == STRING:
        return np.full(shape, text, dtype=object)
    return np.zeros(shape, dtype=field.dtype)


def cast(batch: Batch, signature: Signature) -> Batch:
    """The batch with every array in its field's dtype.

    Raises:
        ArtifactRejected: a column is missing, or a value is not of its field's kind.
    """
    try:
        if isinstance(batch, dict):
            return {field.name: _as_field(batch[field.name], field) for field in signature.inputs}
        return _as_field(batch, signature.inputs[0])
    except (KeyError, ValueError, TypeError) as error:
        raise ArtifactRejected("invalid_input_example", "The input_example does not fit the signature.") from error


def _as_field(array: np.ndarray, field: Field) -> np.ndarray:
    if field.dtype == STRING:
        text = np.empty(array.shape, dtype=object)
        text.ravel()[:] = [None if value is None else str(value) for value in array.ravel().tolist()]
        return text
    return array.astype(field.dtype)
