"""A CSV file as a table of numbers and strings, with errors that name the line and the column."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from runtimes.errors import ModelError, plain

ENCODING = "utf-8-sig"  # a byte order mark is no part of the first column's name
NUMERIC_SHARE = 0.95  # a column of which so much is numbers is meant to be numeric
MIN_NUMERIC_CELLS = 20


class InvalidDataset(ModelError):
    """The file is no table that can be learned from; the message says where."""

    code = "invalid_dataset"


@dataclass(frozen=True)
class Table:
    """Features and target of the same rows.

    features: float64 columns, bool columns, and object columns of str with NaN for what is missing.
    target: numbers, or an object series of str; never missing.
    """

    features: pd.DataFrame
    target: pd.Series


def read_table(file: BinaryIO, target: str, *, is_numeric_target: bool) -> Table:
    """The table in a CSV file whose first row names the columns.

    Raises:
        InvalidDataset: with the line and the column where there is one.
    """
    names = _check_rows(file)
    if target not in names:
        raise InvalidDataset(f"There is no column {plain(target, 80)!r}; the columns are {_listed(names)}.")
    if len(names) < 2:
        raise InvalidDataset("The table has no column besides the target.")
    file.seek(0)
    frame = pd.read_csv(file, encoding=ENCODING, low_memory=False)
    frame.columns = pd.Index(names)
    values = frame.pop(target)
    _refuse_missing_target(values, file, target)
    if is_numeric_target and not is_numeric_dtype(values):
        _refuse_word(file, target)
    features = pd.DataFrame({name: _feature(frame[name], file) for name in frame.columns})
    return Table(features, values if is_numeric_dtype(values) else _words(values))


@contextmanager
def _text(file: BinaryIO) -> Iterator[io.TextIOWrapper]:
    file.seek(0)
    text = io.TextIOWrapper(file, encoding=ENCODING, newline="")
    try:
        yield text
    finally:
        text.detach()


def _check_rows(file: BinaryIO) -> list[str]:
    """The column names, when every row has as many cells as there are names."""
    with _text(file) as text:
        reader = csv.reader(text)
        try:
            names = next(reader, [])
            _check_names(names)
            rows = 0
            for row in reader:
                if row and len(row) != len(names):
                    raise InvalidDataset(f"Line {reader.line_num} has {len(row)} cells instead of {len(names)}.")
                rows += bool(row)
        except UnicodeDecodeError as error:
            raise InvalidDataset(
                f"Line {_undecodable_line(file)} is not UTF-8 text; save the file as UTF-8."
            ) from error
        except csv.Error as error:
            raise InvalidDataset(f"Line {reader.line_num} is no CSV: {plain(error, 100)}.") from error
    if rows == 0:
        raise InvalidDataset("The file has no rows below its header.")
    return names


def _undecodable_line(file: BinaryIO) -> int:
    file.seek(0)
    for number, line in enumerate(file, start=1):
        try:
            line.decode()
        except UnicodeDecodeError:
            return number
    return 1


def _check_names(names: list[str]) -> None:
    if not names:
        raise InvalidDataset("The file is empty.")
    for place, name in enumerate(names, start=1):
        if not name.strip():
            raise InvalidDataset(f"Line 1, column {place}: the column has no name.")
        if name in names[: place - 1]:
            raise InvalidDataset(f"Line 1, column {place}: the name {plain(name, 80)!r} comes twice.")


def _feature(column: pd.Series, file: BinaryIO) -> pd.Series:
    """The column as float64, as bool, or as an object column of str with NaN."""
    if is_bool_dtype(column):
        return column.astype(bool)
    if is_numeric_dtype(column):
        return column.astype("float64")
    present = column.dropna()
    numbers = pd.to_numeric(present, errors="coerce").notna().sum()
    if numbers >= MIN_NUMERIC_CELLS and numbers >= NUMERIC_SHARE * len(present):
        _refuse_word(file, str(column.name))
    return _words(column)


def _words(column: pd.Series) -> pd.Series:
    """An object column of str, as a batch of predictions will have it too; NaN where a value is missing."""
    words = [str(value) if is_there else float("nan") for value, is_there in zip(column, column.notna(), strict=True)]
    return pd.Series(words, index=column.index, dtype=object, name=column.name)


def _refuse_missing_target(values: pd.Series, file: BinaryIO, target: str) -> None:
    if values.isna().any():
        row = int(values.isna().to_numpy().argmax())
        line = next(line for place, (line, _) in enumerate(_cells(file, target)) if place == row)
        raise InvalidDataset(f"Line {line}, column {plain(target, 80)!r}: the target is missing.")


def _refuse_word(file: BinaryIO, name: str) -> NoReturn:
    """Name the first cell of a column that is neither a number nor missing."""
    for line, cell in _cells(file, name):
        value = pd.read_csv(io.StringIO(f"x,y\n{_quoted(cell)},0\n"))["x"].iloc[0]
        if isinstance(value, str):
            told = f"{plain(cell, 60)!r} is not a number, as the column's other values are"
            raise InvalidDataset(f"Line {line}, column {plain(name, 80)!r}: {told}.")
    raise InvalidDataset(f"Column {plain(name, 80)!r} is not made of numbers.")


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def _cells(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Line number and cell of one column, row by row."""
    with _text(file) as text:
        reader = csv.reader(text)
        place = next(reader).index(name)
        for row in reader:
            if row:
                yield reader.line_num, row[place]


def _listed(names: list[str]) -> str:
    return ", ".join(plain(name, 40) for name in names[:20]) + (", …" if len(names) > 20 else "")
