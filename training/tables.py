"""A CSV or JSON Lines file as a table: checked and sampled row by row, in memory that does not grow with the file."""

import csv
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from common.errors import Invalid
from runtimes.coco_files import FORMAT

MAX_ROW_BYTES = 4 << 20
MAX_CELL_CHARS = 131_072  # csv's own limit; it also ends a quote that is never closed
MAX_COLUMNS = 10_000
MAX_COLUMN_NAME_CHARS = 250
PREVIEW_CELL_CHARS = 200
PREVIEW_CELLS = 20_000
BYTE_ORDER_MARK = "\ufeff"
PARQUET_MAGIC = b"PAR1"
ZIP_MAGIC = b"PK\x03\x04"
OFFICE_FILE = b"[Content_Types].xml"  # which begins each spreadsheet of Office, a zip as well
IMAGES = FORMAT  # of a zip of images with annotations
READ_LATER = ("parquet", IMAGES)  # by a confined runner alone
SNIFFED_BYTES = 4096
HASHED_BYTES = 1 << 18


@dataclass(frozen=True)
class Table:
    """What a whole pass over a file found. digest: SHA-256 of its bytes, in hex.

    A Parquet file is only hashed here, since reading one takes a library that no tenant's byte may meet in this
    process: it has no columns and no rows until a confined runner has looked at it.
    """

    format: str
    columns: tuple[str, ...]
    row_count: int
    size_bytes: int
    digest: str


@dataclass(frozen=True)
class Preview:
    """The first rows of a table; long cells are cut, and of a very wide table only the first columns are shown.

    is_whole: the table has no further row. columns_left_out: how many further columns it has.
    """

    columns: tuple[str, ...]
    rows: list[list[str]]
    is_whole: bool
    columns_left_out: int = 0


def read_table(file: BinaryIO) -> Table:
    """Read the file from its start to its end, and say what table it is; its content tells its format.

    Blank lines are no rows. It takes one row at a time, whatever the file's size.

    Raises:
        Invalid: it is empty, is not UTF-8, has no header or names a column twice, has a row of another length, or one
            that is no flat JSON object; the sentence says in which line.
    """
    file.seek(0)
    start = file.read(SNIFFED_BYTES)
    file.seek(0)
    if start.startswith(PARQUET_MAGIC):
        return _read_parquet(file)
    if start.startswith(ZIP_MAGIC):
        if OFFICE_FILE in start:
            raise Invalid("This is a file of Office; save the sheet as CSV.", fields={"file": "no table"})
        return _read_zip(file)
    if start.removeprefix(BYTE_ORDER_MARK.encode()).lstrip().startswith(b"{"):
        return _read_json_lines(file)
    lines = _Lines(file)
    rows = _rows(lines)
    columns = _header(next(rows, None), lines)
    row_count = sum(1 for _ in _checked(rows, columns, lines))
    if row_count == 0:
        raise Invalid("The file has a header and no rows.", code="empty_input", fields={"file": "no rows"})
    return Table("csv", columns, row_count, lines.size_bytes, lines.digest.hexdigest())


def _read_parquet(file: BinaryIO) -> Table:
    digest, size_bytes, end = _hashed(file)
    if end != PARQUET_MAGIC or size_bytes < 3 * len(PARQUET_MAGIC):
        raise Invalid("The Parquet file is cut short.", fields={"file": "it does not end as Parquet files do"})
    return Table("parquet", (), 0, size_bytes, digest)


def _read_zip(file: BinaryIO) -> Table:
    """Images with annotations; whether it really holds them is for a confined runner to say."""
    digest, size_bytes, _ = _hashed(file)
    return Table(IMAGES, (), 0, size_bytes, digest)


def _hashed(file: BinaryIO) -> tuple[str, int, bytes]:
    """The SHA-256 of the file in hex, its size and its last bytes."""
    digest, size_bytes, end = hashlib.sha256(), 0, b""
    while piece := file.read(HASHED_BYTES):
        digest.update(piece)
        size_bytes += len(piece)
        end = (end + piece)[-len(PARQUET_MAGIC) :]
    return digest.hexdigest(), size_bytes, end


def _read_json_lines(file: BinaryIO) -> Table:
    lines, columns, row_count = _Lines(file), dict[str, None](), 0
    for row in _json_rows(lines):
        columns.update(dict.fromkeys(row))
        row_count += 1
        if len(columns) > MAX_COLUMNS:
            lines.refuse(f"with it there are more than {MAX_COLUMNS:,} columns", lines.number)
    return Table("jsonl", tuple(columns), row_count, lines.size_bytes, lines.digest.hexdigest())


def _json_rows(lines: "_Lines") -> Iterator[dict[str, Any]]:
    """The rows of a JSON Lines file, each a flat object."""
    for line in lines:
        lines.begin_row()
        if line.strip():
            yield _json_row(line, lines)


def _json_row(line: str, lines: "_Lines") -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        lines.refuse(f"column {error.colno} is no JSON ({error.msg})", lines.number)
    except (RecursionError, ValueError):
        lines.refuse("this JSON cannot be read", lines.number)
    if not isinstance(row, dict) or not row:
        lines.refuse("a row is a JSON object with a value for each column", lines.number)
    for name, value in row.items():
        if not name.strip() or len(name) > MAX_COLUMN_NAME_CHARS or "\0" in name or not _is_utf8(name):
            lines.refuse(f"a key has 1 to {MAX_COLUMN_NAME_CHARS} characters of text", lines.number)
        if isinstance(value, dict | list):
            lines.refuse(f"key '{name}': a cell is a text, a number, true, false or null", lines.number)
    return row


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _preview_json(file: BinaryIO, limit: int) -> Preview:
    lines = _Lines(file)
    rows = list(itertools.islice(_json_rows(lines), limit + 1))
    columns = tuple(dict.fromkeys(name for row in rows[:limit] for name in row))
    shown = max(1, PREVIEW_CELLS // max(1, limit))
    cells = [[_cell(row.get(name)) for name in columns[:shown]] for row in rows[:limit]]
    return Preview(columns[:shown], cells, len(rows) <= limit, max(0, len(columns) - shown))


def _cell(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text[:PREVIEW_CELL_CHARS].encode(errors="replace").decode()


def read_preview(file: BinaryIO, limit: int, format_name: str = "csv") -> Preview:
    """The first `limit` rows of a CSV or JSON Lines file that `read_table` took; no more of it is read.

    Of so many columns that the rows had more than PREVIEW_CELLS cells, the last ones are left out.
    """
    if format_name == "jsonl":
        return _preview_json(file, limit)
    lines = _Lines(file)
    rows = _rows(lines)
    columns = _header(next(rows, None), lines)
    shown = max(1, PREVIEW_CELLS // max(1, limit))
    left_out = max(0, len(columns) - shown)
    sample: list[list[str]] = []
    for row in _checked(rows, columns, lines):
        if len(sample) == limit:
            return Preview(columns[:shown], sample, is_whole=False, columns_left_out=left_out)
        sample.append([cell[:PREVIEW_CELL_CHARS] for cell in row[:shown]])
    return Preview(columns[:shown], sample, is_whole=True, columns_left_out=left_out)


class _Lines:
    """The lines of a file as text, counted and hashed, with a bound on the bytes between two calls of `begin_row`.

    A quoted cell may hold line ends, so a row may be many lines; without the bound a quote that is never closed, or
    closed and opened again on every line, would take the whole file into memory as one row.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._readline = file.readline
        self._row_bytes = 0
        self.first_line = 1
        self.number = 0
        self.size_bytes = 0
        self.digest = hashlib.sha256()

    def begin_row(self) -> None:
        """What comes next belongs to another row."""
        self._row_bytes = 0
        self.first_line = self.number + 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._readline(MAX_ROW_BYTES + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.size_bytes += len(line)
        self._row_bytes += len(line)
        self.digest.update(line)
        if self._row_bytes > MAX_ROW_BYTES:
            self.refuse(f"a row has more than {MAX_ROW_BYTES:,} bytes; perhaps a quote is not closed", self.first_line)
        if b"\0" in line:
            self.refuse("there is a NUL byte, so this is no CSV file", self.number)
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            self.refuse(f"byte {error.start + 1} is not UTF-8; save the file as UTF-8", self.number)
        return text.removeprefix(BYTE_ORDER_MARK) if self.number == 1 else text

    def refuse(self, fault: str, number: int) -> NoReturn:
        """Say what is wrong, and where."""
        where = f"line {number}: {fault}"
        raise Invalid(f"The file cannot be read as a table, {where}.", fields={"file": where})


def _rows(lines: _Lines) -> Iterator[list[str]]:
    """The rows that are not blank."""
    reader = csv.reader(lines, strict=True)
    while True:
        lines.begin_row()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            lines.refuse(_sentence(error), lines.first_line)
        if row:
            yield row


def _sentence(error: csv.Error) -> str:
    text = str(error)
    if "field larger" in text:
        return f"a cell has more than {MAX_CELL_CHARS:,} characters; perhaps a quote is not closed"
    if "unexpected end" in text:
        return "a quote is not closed"
    if "expected after" in text:
        return "a quoted cell goes on after its closing quote; write a quote inside quotes twice"
    if "new-line character" in text:
        return "lines must end with LF or CRLF, not with CR alone"
    return text


def _checked(rows: Iterator[list[str]], columns: tuple[str, ...], lines: _Lines) -> Iterator[list[str]]:
    """The rows, each as long as the header."""
    width = len(columns)
    for row in rows:
        if len(row) != width:
            lines.refuse(
                f"the row has {_count(len(row), 'cell')}, and the header names {_count(width, 'column')}",
                lines.first_line,
            )
        yield row


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _header(row: list[str] | None, lines: _Lines) -> tuple[str, ...]:
    """The column names in the first row."""
    if row is None:
        raise Invalid("The file is empty.", code="empty_input", fields={"file": "empty"})
    line = lines.first_line
    if len(row) > MAX_COLUMNS:
        lines.refuse(f"there are {len(row):,} columns, and at most {MAX_COLUMNS:,} are taken", line)
    if len(row) == 1 and any(mark in row[0] for mark in ";\t|"):
        lines.refuse("the columns are not separated by commas", line)
    if _looks_like_data(row):
        lines.refuse("there is no header: every name in it is a number", line)
    seen: set[str] = set()
    for position, name in enumerate(row, start=1):
        if not name.strip():
            lines.refuse(f"column {position} has no name in the header (pandas: to_csv(index=False))", line)
        if len(name) > MAX_COLUMN_NAME_CHARS:
            lines.refuse(f"the name of column {position} has more than {MAX_COLUMN_NAME_CHARS} characters", line)
        if name in seen:
            lines.refuse(f"the column '{name}' comes twice", line)
        seen.add(name)
    return tuple(row)


def _looks_like_data(row: list[str]) -> bool:
    """Whether all names are numbers, other than the 0, 1, 2, … that an unnamed frame is written with."""
    return all(_is_number(cell) for cell in row) and row != [str(position) for position in range(len(row))]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
