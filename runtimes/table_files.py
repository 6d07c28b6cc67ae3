"""Files that hold tables (CSV, JSON Lines, Parquet) as pandas frames. Only a confined runner reads a tenant's file.

Everything that is wrong with a file is said by its line and column, where the format has lines.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import pandas as pd

from runtimes.errors import ModelError, plain

ENCODING = "utf-8-sig"  # a byte order mark is no part of the first column's name
MAX_COLUMNS = 10_000
PARQUET_MAGIC = b"PAR1"
Scalar = str | int | float | bool | None


class InvalidDataset(ModelError):
    """The file is no table that can be read or learned from; the message says where."""

    code = "invalid_dataset"


class TableFile(ABC):
    """A table in a file of one format; the file stays the caller's and may be read any number of times."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @abstractmethod
    def frame(self) -> pd.DataFrame:
        """The whole table, its columns' dtypes as they were found.

        Raises:
            InvalidDataset: with the line and the column where there is one.
        """

    @abstractmethod
    def frames(self, rows: int) -> Iterator[pd.DataFrame]:
        """The table in pieces of at most so many rows, in memory that does not grow with the file.

        A column's dtype may differ from piece to piece: who knows what it should be converts it.
        """

    def cells(self, name: str) -> Iterator[tuple[int, Scalar]]:
        """Line number and cell of one column, row by row; nothing where the format has no lines."""
        return iter(())


class CsvFile(TableFile):
    """CSV in UTF-8 whose first row names the columns."""

    def frame(self) -> pd.DataFrame:
        names = self._check_rows()
        self._file.seek(0)
        frame = pd.read_csv(self._file, encoding=ENCODING, low_memory=False)
        frame.columns = pd.Index(names)
        return frame

    def frames(self, rows: int) -> Iterator[pd.DataFrame]:
        names = self._check_rows()
        self._file.seek(0)
        with pd.read_csv(self._file, encoding=ENCODING, chunksize=rows, low_memory=False) as pieces:
            for piece in pieces:
                piece.columns = pd.Index(names)
                yield piece

    def cells(self, name: str) -> Iterator[tuple[int, Scalar]]:
        with self._text() as text:
            reader = csv.reader(text)
            place = next(reader).index(name)
            for row in reader:
                if row:
                    yield reader.line_num, row[place]

    @contextmanager
    def _text(self) -> Iterator[io.TextIOWrapper]:
        self._file.seek(0)
        text = io.TextIOWrapper(self._file, encoding=ENCODING, newline="")
        try:
            yield text
        finally:
            text.detach()

    def _check_rows(self) -> list[str]:
        """The column names, when every row has as many cells as there are names."""
        with self._text() as text:
            reader = csv.reader(text)
            try:
                names = next(reader, [])
                check_names(names)
                rows = 0
                for row in reader:
                    if row and len(row) != len(names):
                        raise InvalidDataset(f"Line {reader.line_num} has {len(row)} cells instead of {len(names)}.")
                    rows += bool(row)
            except UnicodeDecodeError as error:
                raise InvalidDataset(
                    f"Line {self._undecodable_line()} is not UTF-8 text; save the file as UTF-8."
                ) from error
            except csv.Error as error:
                raise InvalidDataset(f"Line {reader.line_num} is no CSV: {plain(error, 100)}.") from error
        if rows == 0:
            raise InvalidDataset("The file has no rows below its header.")
        return names

    def _undecodable_line(self) -> int:
        self._file.seek(0)
        for number, line in enumerate(self._file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
        return 1


def check_names(names: list[str]) -> None:
    """Go on only with names that a table can have.

    Raises:
        InvalidDataset: there is none, or one is empty or comes twice.
    """
    if not names:
        raise InvalidDataset("The file is empty.")
    for place, name in enumerate(names, start=1):
        if not name.strip():
            raise InvalidDataset(f"Line 1, column {place}: the column has no name.")
        if name in names[: place - 1]:
            raise InvalidDataset(f"Line 1, column {place}: the name {plain(name, 80)!r} comes twice.")


class JsonLinesFile(TableFile):
    """One flat JSON object a line; a key that a row lacks is a missing value."""

    def frame(self) -> pd.DataFrame:
        return _of_rows([row for _, row in self.rows()], None)

    def frames(self, rows: int) -> Iterator[pd.DataFrame]:
        names = list(dict.fromkeys(name for _, row in self.rows() for name in row))
        found = (row for _, row in self.rows())
        while piece := list(itertools.islice(found, rows)):
            yield _of_rows(piece, names)

    def cells(self, name: str) -> Iterator[tuple[int, Scalar]]:
        return ((number, row.get(name)) for number, row in self.rows())

    def rows(self) -> Iterator[tuple[int, Mapping[str, Scalar]]]:
        """Line number and row, one by one."""
        self._file.seek(0)
        is_empty = True
        for number, line in enumerate(self._file, start=1):
            if line.strip():
                is_empty = False
                yield number, json_row(line, number)
        if is_empty:
            raise InvalidDataset("The file is empty.")


def json_row(line: bytes, number: int) -> dict[str, Scalar]:
    """The row that a line of JSON holds.

    Raises:
        InvalidDataset: it is no flat object; the sentence has the line, and the column or the key.
    """
    try:
        row = json.loads(line.decode(ENCODING))
    except UnicodeDecodeError as error:
        raise InvalidDataset(f"Line {number}, byte {error.start + 1} is not UTF-8; save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise InvalidDataset(f"Line {number}, column {error.colno} is no JSON: {error.msg}.") from error
    except (RecursionError, ValueError) as error:
        raise InvalidDataset(f"Line {number} is no JSON that can be read: {plain(error, 100)}.") from error
    if not isinstance(row, dict) or not row:
        raise InvalidDataset(f"Line {number} is no JSON object with a value for each column.")
    for key, value in row.items():
        if not key.strip():
            raise InvalidDataset(f"Line {number}: a key is empty.")
        if isinstance(value, dict | list):
            raise InvalidDataset(f"Line {number}, key {plain(key, 80)!r}: a cell is a text, a number, true or false.")
    return row


def _of_rows(rows: list[Mapping[str, Scalar]], names: list[str] | None) -> pd.DataFrame:
    columns = names or list(dict.fromkeys(name for row in rows for name in row))
    if len(columns) > MAX_COLUMNS:
        raise InvalidDataset(f"The rows name {len(columns):,} columns, and at most {MAX_COLUMNS:,} are taken.")
    return pd.DataFrame({name: [row.get(name) for row in rows] for name in columns}, columns=columns)


class ParquetFile(TableFile):
    """Parquet with flat columns."""

    def frame(self) -> pd.DataFrame:
        with self._open() as opened:
            return frame_of_arrow(opened.read(use_threads=False))

    def frames(self, rows: int) -> Iterator[pd.DataFrame]:
        return map(frame_of_arrow, self.batches(rows))

    def batches(self, rows: int) -> Iterator[Any]:
        """The table in pieces as Arrow has them."""
        with self._open() as opened:
            yield from opened.iter_batches(batch_size=rows, use_threads=False)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import pyarrow  # heavy: only where a Parquet file is read
        from pyarrow import parquet

        self._file.seek(0)
        try:
            opened = parquet.ParquetFile(self._file)
            _check_parquet(opened)
            yield opened
        except (pyarrow.ArrowException, OSError) as error:
            raise InvalidDataset(f"The file is no Parquet file that can be read: {plain(error, 200)}.") from error


def _check_parquet(opened: Any) -> None:
    from pyarrow import types  # heavy: only where a Parquet file is read

    names = list(opened.schema_arrow.names)
    check_names(names)
    if len(names) > MAX_COLUMNS:
        raise InvalidDataset(f"The file has {len(names):,} columns, and at most {MAX_COLUMNS:,} are taken.")
    for field in opened.schema_arrow:
        if types.is_nested(field.type) or types.is_binary(field.type) or types.is_large_binary(field.type):
            told = f"values of the type {plain(field.type, 60)}; flatten it to texts, numbers, booleans or dates"
            raise InvalidDataset(f"Column {plain(field.name, 80)!r} has {told}.")
    if opened.metadata.num_rows == 0:
        raise InvalidDataset("The file has no rows.")


def frame_of_arrow(table: Any) -> pd.DataFrame:
    """The frame; decimals are numbers, and moments are texts in ISO form, as they would be in JSON."""
    frame: pd.DataFrame = table.to_pandas(use_threads=False, date_as_object=True)
    for name, column in frame.items():
        if isinstance(column.dtype, pd.CategoricalDtype):
            frame[name] = column.astype(object)
        elif column.dtype.kind in "mM":
            frame[name] = _moments(column)
        elif column.dtype == object:
            frame[name] = _objects(column)
    return frame


def _moments(column: pd.Series) -> pd.Series:
    texts = [None if value is pd.NaT else value.isoformat() for value in column.array]
    return pd.Series(texts, index=column.index, dtype=object)


def _objects(column: pd.Series) -> pd.Series:
    """Dates and decimals among Python objects as texts and numbers."""
    from decimal import Decimal

    first = next((value for value in column if value is not None), None)
    if isinstance(first, Decimal):
        return pd.Series([None if value is None else float(value) for value in column], index=column.index)
    return column.map(lambda value: value.isoformat() if hasattr(value, "isoformat") else value)


FORMATS: Mapping[str, type[TableFile]] = {"csv": CsvFile, "jsonl": JsonLinesFile, "parquet": ParquetFile}


def table_file(file: BinaryIO, format_name: str) -> TableFile:
    """The table in a file of this format.

    Raises:
        InvalidDataset: there is no such format.
    """
    kind = FORMATS.get(format_name)
    if kind is None:
        raise InvalidDataset(f"Tables are {', '.join(FORMATS)}, not {plain(format_name, 40)!r}.")
    return kind(file)
