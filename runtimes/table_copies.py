"""Copies of a table with further columns, in the format of its file, made piece by piece. Only confined runners do."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from runtimes.errors import plain
from runtimes.table_files import (
    ENCODING,
    InvalidDataset,
    JsonLinesFile,
    ParquetFile,
    check_names,
    frame_of_arrow,
)

Write = Callable[[bytes], None]


@dataclass(frozen=True)
class NewColumn:
    """A column to add. dtype: of a signature's field; a row without a value has none in the copy."""

    name: str
    dtype: str


@dataclass(frozen=True)
class Piece:
    """Some rows. frame: to ask a model with. original: as the file has them."""

    frame: pd.DataFrame
    original: Any

    def cut(self, rows: slice) -> Piece:
        """Some of these rows."""
        return Piece(self.frame.iloc[rows], self.original[rows])


class TableCopy(ABC):
    """A table in a file, and its copy that goes to `write`.

    keys: the new columns as values are given by. added: the same as the copy has them, with names of their own.
    """

    def __init__(self, file: BinaryIO, write: Write, added: Sequence[NewColumn]) -> None:
        self._file, self._write, self.added = file, write, list(added)
        self.keys = [column.name for column in added]
        self._size = max(1, file.seek(0, os.SEEK_END))
        file.seek(0)

    @property
    def read_fraction(self) -> float:
        """About how much of the file has been read, from 0 to 1."""
        return min(1.0, self._file.tell() / self._size)

    @abstractmethod
    def pieces(self, rows: int) -> Iterator[Piece]:
        """The table in pieces of at most so many rows.

        Raises:
            InvalidDataset: it is no table of this format; with the line where there is one.
        """

    @abstractmethod
    def append(self, original: Any, values: Mapping[str, Sequence[Any]]) -> None:
        """Write rows with the values of the new columns, by their keys; None where a row has none."""

    def close(self) -> None:  # noqa: B027 (most formats end with their last row)
        """Write what comes last."""

    def _name_apart(self, names: Sequence[str]) -> None:
        """Give a new column another name where the table has one of its name already."""
        taken = set(names)
        for place, column in enumerate(self.added):
            name = column.name
            while name in taken:
                name += "_"
            taken.add(name)
            self.added[place] = NewColumn(name, column.dtype)

    def _by_row(self, values: Mapping[str, Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
        return zip(*(values[key] for key in self.keys), strict=True)


class CsvCopy(TableCopy):
    """CSV; what a row was stays as it was, letter by letter."""

    def pieces(self, rows: int) -> Iterator[Piece]:
        self._file.seek(0)
        lines = _Lines(io.TextIOWrapper(self._file, encoding=ENCODING, newline=""))
        reader = csv.reader(lines)
        with _told(reader):
            names = next(reader, [])
            check_names(names)
            self._name_apart(names)
            self._write_rows([lines.taken()], [tuple(column.name for column in self.added)])
            is_empty = True
            while piece := list(itertools.islice(_rows(reader, lines, len(names)), rows)):
                is_empty = False
                cells, texts = zip(*piece, strict=True)
                yield Piece(pd.DataFrame(list(cells), columns=names, dtype=object), list(texts))
        if is_empty:
            raise InvalidDataset("The file has no rows below its header.")

    def append(self, original: Any, values: Mapping[str, Sequence[Any]]) -> None:
        self._write_rows(original, self._by_row(values))

    def _write_rows(self, texts: Sequence[str], added: Iterable[Sequence[Any]]) -> None:
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(added)
        written = _split(out.getvalue(), len(texts))
        whole = "".join(f"{text},{more}" for text, more in zip(texts, written, strict=True))
        self._write(whole.encode(errors="replace"))


class _Lines:
    """Lines of a text, which remember what was read since they were last asked."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text, self._taken = text, [""]

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._text)
        self._taken.append(line)
        return line

    def taken(self) -> str:
        """What was read, less the end of the last line."""
        text = "".join(self._taken).rstrip("\r\n")
        self._taken.clear()
        return text


def _rows(reader: Any, lines: _Lines, width: int) -> Iterator[tuple[list[str], str]]:
    """The rows that are not blank, each with its own text."""
    for row in reader:
        text = lines.taken()
        if not row:
            continue
        if len(row) != width:
            raise InvalidDataset(f"Line {reader.line_num} has {len(row)} cells instead of {width}.")
        yield row, text


@contextmanager
def _told(reader: Any) -> Iterator[None]:
    """Say in which line a file stops being CSV."""
    try:
        yield
    except UnicodeDecodeError as error:
        told = f"After line {reader.line_num} comes what is not UTF-8 text; save the file as UTF-8."
        raise InvalidDataset(told) from error
    except csv.Error as error:
        raise InvalidDataset(f"Line {reader.line_num} is no CSV: {plain(error, 100)}.") from error


def _split(text: str, rows: int) -> list[str]:
    """The text of each written row; only one that holds a line end itself makes it worth looking closer."""
    lines = text.splitlines(keepends=True)
    if len(lines) == rows:
        return lines
    recorded = _Lines(io.TextIOWrapper(io.BytesIO(text.encode(errors="replace")), encoding="utf-8", newline=""))
    return [recorded.taken() + "\n" for _ in csv.reader(recorded)]


class JsonLinesCopy(TableCopy):
    """JSON Lines; a row keeps the keys that it had."""

    def pieces(self, rows: int) -> Iterator[Piece]:
        found = (dict(row) for _, row in JsonLinesFile(self._file).rows())
        names: list[str] = []
        while piece := list(itertools.islice(found, rows)):
            if not names:
                names = list(piece[0])
                self._name_apart(names)
            known = list(dict.fromkeys([*names, *(name for row in piece for name in row)]))
            yield Piece(pd.DataFrame({name: _objects([row.get(name) for row in piece]) for name in known}), piece)

    def append(self, original: Any, values: Mapping[str, Sequence[Any]]) -> None:
        names = [column.name for column in self.added]
        rows = zip(original, self._by_row(values), strict=True)
        lines = [json.dumps({**row, **_plain(names, more)}, ensure_ascii=False) for row, more in rows]
        self._write(("\n".join(lines) + "\n").encode(errors="replace"))


def _objects(values: list[Any]) -> pd.Series:
    return pd.Series(values, dtype=object)


def _plain(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """JSON values; JSON has no NaN."""
    return {name: None if value != value else value for name, value in zip(names, values, strict=True)}


class ParquetCopy(TableCopy):
    """Parquet; the columns that were there keep their types."""

    _writer: Any = None

    def pieces(self, rows: int) -> Iterator[Piece]:
        for batch in ParquetFile(self._file).batches(rows):
            if self._writer is None:
                self._begin(batch.schema)
            yield Piece(frame_of_arrow(batch), batch)

    def append(self, original: Any, values: Mapping[str, Sequence[Any]]) -> None:
        import pyarrow

        self._need_writer()
        types = [self._schema.field(column.name).type for column in self.added]
        added = [pyarrow.array(values[key], kind, from_pandas=True) for key, kind in zip(self.keys, types, strict=True)]
        self._writer.write_batch(pyarrow.RecordBatch.from_arrays([*original.columns, *added], schema=self._schema))

    def close(self) -> None:
        self._need_writer()
        self._writer.close()

    def _begin(self, schema: Any) -> None:
        import pyarrow
        from pyarrow import parquet

        self._name_apart(list(schema.names))
        for column in self.added:
            schema = schema.append(pyarrow.field(column.name, _arrow_type(column.dtype)))
        self._schema = schema.remove_metadata()
        self._writer = parquet.ParquetWriter(_Out(self._write), self._schema)

    def _need_writer(self) -> None:
        if self._writer is None:
            raise InvalidDataset("The file has no rows.")


class _Out:
    """A file that is only written to."""

    closed = False
    mode = "wb"

    def __init__(self, write: Write) -> None:
        self._write, self._position = write, 0

    def write(self, data: Any) -> int:
        written = bytes(data)
        self._write(written)
        self._position += len(written)
        return len(written)

    def tell(self) -> int:
        return self._position

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def _arrow_type(dtype: str) -> Any:
    import pyarrow

    kinds = {"int": pyarrow.int64(), "uint": pyarrow.uint64(), "float": pyarrow.float64(), "bool": pyarrow.bool_()}
    return kinds.get(dtype.rstrip("0123456789"), pyarrow.string())


COPIES: Mapping[str, type[TableCopy]] = {"csv": CsvCopy, "jsonl": JsonLinesCopy, "parquet": ParquetCopy}


def table_copy(file: BinaryIO, format_name: str, write: Write, added: Sequence[NewColumn]) -> TableCopy:
    """The copy of a file of this format.

    Raises:
        InvalidDataset: there is no such format.
    """
    kind = COPIES.get(format_name)
    if kind is None:
        raise InvalidDataset(f"Tables are {', '.join(COPIES)}, not {plain(format_name, 40)!r}.")
    return kind(file, write, added)


def cells(values: np.ndarray) -> list[Any]:
    """The values of an output, one a row: JSON text for a row of several."""
    if values.ndim <= 1:
        return list(values.tolist())
    return [json.dumps(row) for row in values.tolist()]
