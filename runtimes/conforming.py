"""Rows of a table as a model's inputs: the rows that fit, and what is wrong with each of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from runtimes.errors import plain
from runtimes.signature import STRING, Batch, Field, Signature
from runtimes.table_files import InvalidDataset

# What pandas takes for a missing value in a CSV file, so that a batch sees a table as a fit did.
MISSING = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"]
).union(["NULL", "NaN", "None", "n/a", "nan", "null"])
TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
CELL_CHARS = 60


@dataclass(frozen=True)
class Conformed:
    """batch: the rows that fit, in their order. faults: what is wrong with the others, by their place."""

    batch: Batch
    faults: dict[int, str]


def conform(frame: pd.DataFrame, signature: Signature) -> Conformed:
    """The rows of a frame as the signature's inputs. A text that stands for a missing value in a CSV file is one.

    Raises:
        InvalidDataset: the columns are not those that the model takes.
    """
    fields = fields_for(frame, signature)
    faults: dict[int, str] = {}
    columns = {field.name: _conformed(frame[field.name], field, faults) for field in fields}
    if faults:
        fits = np.ones(len(frame), dtype=bool)
        fits[list(faults)] = False
        columns = {name: values[fits] for name, values in columns.items()}
    typed = {field.name: _typed(columns[field.name], field) for field in fields}
    if signature.layout == "columns":
        return Conformed(typed, faults)
    return Conformed(np.column_stack(list(typed.values())), faults)


def fields_for(frame: pd.DataFrame, signature: Signature) -> list[Field]:
    """The columns that the model is asked with, a field each."""
    if signature.layout == "columns":
        if missing := [field.name for field in signature.inputs if field.name not in frame.columns]:
            names = ", ".join(repr(plain(name, 80)) for name in missing[:10])
            raise InvalidDataset(f"The file lacks columns that the model takes: {names}.")
        return list(signature.inputs)
    field = signature.inputs[0]
    if len(field.shape) != 2 or field.shape[1] not in (-1, len(frame.columns)):
        raise InvalidDataset(
            f"The model takes rows of the shape {list(field.shape[1:])}, and the file has {len(frame.columns)} columns."
        )
    return [Field(str(name), field.dtype, (-1,), field.nullable) for name in frame.columns]


def _conformed(column: pd.Series, field: Field, faults: dict[int, str]) -> np.ndarray:
    """The column's values as objects or numbers, with NaN or None for what is missing; what does not fit is noted."""
    absent = _absent(column)
    if field.dtype == STRING:
        texts = [None if gone else str(value) for value, gone in zip(column, absent, strict=True)]
        values = np.array(texts, dtype=object)
    else:
        values = _numbers(column, field, absent, faults)
    if not field.nullable or not (field.dtype == STRING or field.dtype.startswith("float")):
        _note(faults, absent, lambda place: f"column {_named(field)}: the value is missing")
    return values


def _absent(column: pd.Series) -> np.ndarray:
    absent = column.isna().to_numpy()
    if not is_numeric_dtype(column):
        absent = absent | column.isin(MISSING).to_numpy()
    return absent


def _numbers(column: pd.Series, field: Field, absent: np.ndarray, faults: dict[int, str]) -> np.ndarray:
    if is_bool_dtype(column) or is_numeric_dtype(column):
        is_exact = column.dtype.kind in "iu"
        values = column.to_numpy() if is_exact else column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        plain_column = column.map(lambda value: TRUTHS.get(value, value)) if field.dtype == "bool" else column
        values = pd.to_numeric(plain_column.where(~absent), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        wrong = np.isnan(values) & ~absent
        _note(faults, wrong, lambda place: f"column {_named(field)}: {_shown(column, place)} is not {_words(field)}")
    why = f"too large for {field.dtype}" if field.dtype.startswith("float") else f"not {_words(field)}"
    wrong = ~absent & ~_fits(values, field.dtype)
    _note(faults, wrong, lambda place: f"column {_named(field)}: {_shown(column, place)} is {why}")
    return values


def _fits(values: np.ndarray, dtype: str) -> np.ndarray:
    """Which values a dtype can hold; among floats, NaN and the infinite as well."""
    if dtype.startswith("float"):
        with np.errstate(over="ignore"):
            kept: np.ndarray = ~np.isinf(values.astype(dtype)) | np.isinf(values)
        return kept
    if dtype == "bool":
        return np.isin(values, (0, 1))
    bounds = np.iinfo(dtype)
    inside: np.ndarray = (values >= bounds.min) & (values <= bounds.max)
    return inside & (values == np.floor(values)) if values.dtype.kind == "f" else inside


def _typed(values: np.ndarray, field: Field) -> np.ndarray:
    return values if field.dtype == STRING else values.astype(field.dtype)


def _note(faults: dict[int, str], where: np.ndarray, sentence: Callable[[int], str]) -> None:
    """Keep the first fault of each row."""
    for place in np.flatnonzero(where).tolist():
        if place not in faults:
            faults[place] = sentence(place)


def _named(field: Field) -> str:
    return repr(plain(field.name, 80))


def _shown(column: pd.Series, place: int) -> str:
    return repr(plain(str(column.iloc[place]), CELL_CHARS))


def _words(field: Field) -> str:
    if field.dtype == "bool":
        return "true or false"
    return "a number" if field.dtype.startswith("float") else f"a whole number of {field.dtype}"
