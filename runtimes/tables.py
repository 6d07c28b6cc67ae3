"""A table to learn from: features as numbers, booleans and strings, with errors that name the line and the column."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from runtimes.errors import plain
from runtimes.table_files import InvalidDataset, Scalar, TableFile, table_file

NUMERIC_SHARE = 0.95  # a column of which so much is numbers is meant to be numeric
MIN_NUMERIC_CELLS = 20

__all__ = ["InvalidDataset", "Table", "read_table"]


@dataclass(frozen=True)
class Table:
    """Features and target of the same rows.

    features: float64 columns, bool columns, and object columns of str with NaN for what is missing.
    target: numbers, or an object series of str; never missing.
    """

    features: pd.DataFrame
    target: pd.Series


def read_table(file: BinaryIO, target: str, *, is_numeric_target: bool, format_name: str = "csv") -> Table:
    """The table in a file whose columns are named.

    Raises:
        InvalidDataset: with the line and the column where there is one.
    """
    source = table_file(file, format_name)
    frame = source.frame()
    names = [str(name) for name in frame.columns]
    if target not in names:
        raise InvalidDataset(f"There is no column {plain(target, 80)!r}; the columns are {_listed(names)}.")
    if len(names) < 2:
        raise InvalidDataset("The table has no column besides the target.")
    values = frame.pop(target)
    _refuse_missing_target(values, source, target)
    if is_numeric_target and not is_numeric_dtype(values):
        _refuse_word(source, target)
    features = pd.DataFrame({name: feature(frame[name], source) for name in frame.columns})
    return Table(features, values if is_numeric_dtype(values) else _words(values))


def feature(column: pd.Series, source: TableFile) -> pd.Series:
    """The column as float64, as bool, or as an object column of str with NaN."""
    if is_bool_dtype(column):
        return column.astype(bool)
    if is_numeric_dtype(column):
        return column.astype("float64")
    present = column.dropna()
    numbers = pd.to_numeric(present, errors="coerce").notna().sum()
    if len(present) > numbers >= MIN_NUMERIC_CELLS and numbers >= NUMERIC_SHARE * len(present):
        _refuse_word(source, str(column.name))
    return _words(column)


def _words(column: pd.Series) -> pd.Series:
    """An object column of str, as a batch of predictions will have it too; NaN where a value is missing."""
    words = [str(value) if is_there else float("nan") for value, is_there in zip(column, column.notna(), strict=True)]
    return pd.Series(words, index=column.index, dtype=object, name=column.name)


def _refuse_missing_target(values: pd.Series, source: TableFile, target: str) -> None:
    if values.isna().any():
        row = int(values.isna().to_numpy().argmax())
        line = next((line for place, (line, _) in enumerate(source.cells(target)) if place == row), None)
        where = f"Row {row + 1}" if line is None else f"Line {line}"
        raise InvalidDataset(f"{where}, column {plain(target, 80)!r}: the target is missing.")


def _refuse_word(source: TableFile, name: str) -> NoReturn:
    """Name the first cell of a column that is neither a number nor missing."""
    for line, cell in source.cells(name):
        if _is_word(cell):
            told = f"{plain(cell, 60)!r} is not a number, as the column's other values are"
            raise InvalidDataset(f"Line {line}, column {plain(name, 80)!r}: {told}.")
    raise InvalidDataset(f"Column {plain(name, 80)!r} is not made of numbers.")


def _is_word(cell: Scalar) -> bool:
    """Whether a cell is a text that pandas takes for neither a number nor a missing value."""
    if not isinstance(cell, str):
        return False
    quoted = '"' + cell.replace('"', '""') + '"'
    return isinstance(pd.read_csv(io.StringIO(f"x,y\n{quoted},0\n"))["x"].iloc[0], str)


def _listed(names: list[str]) -> str:
    return ", ".join(plain(name, 40) for name in names[:20]) + (", …" if len(names) > 20 else "")
