"""A CSV file is taken as a table, or refused with what is wrong and in which line."""

import hashlib
import io
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.errors import Invalid
from training import tables
from training.tables import MAX_CELL_CHARS, read_preview, read_table

ROOT = Path(__file__).parents[2]
# reads a table in a process of its own, in which no other thread takes memory
ALONE = """
import sys, tracemalloc
from training.tables import read_table
with open(sys.argv[1], "rb") as file:
    tracemalloc.start()
    print(read_table(file).row_count, tracemalloc.get_traced_memory()[1])
"""


@dataclass
class Peak:
    size_bytes: int = 0


@contextmanager
def peak_memory():
    peak = Peak()
    tracemalloc.start()
    try:
        yield peak
    finally:
        peak.size_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


def fault_of(content: bytes) -> Invalid:
    with pytest.raises(Invalid) as caught:
        read_table(io.BytesIO(content))
    return caught.value


def test_a_table_is_its_columns_rows_and_digest():
    table = read_table(io.BytesIO(b"age,city\n1,Rome\n2,Oslo\n"))
    assert table.columns == ("age", "city")
    assert (table.row_count, table.size_bytes) == (2, 23)
    assert table.digest == hashlib.sha256(b"age,city\n1,Rome\n2,Oslo\n").hexdigest()


def test_quoted_cells_may_hold_commas_quotes_and_line_ends():
    table = read_table(io.BytesIO(b'a,b\r\n"x, ""y""\r\nz",1\r\n'))
    assert table.row_count == 1


def test_a_byte_order_mark_is_no_part_of_the_first_name():
    assert read_table(io.BytesIO(b"\xef\xbb\xbfa,b\n1,2\n")).columns == ("a", "b")


def test_blank_lines_are_no_rows():
    assert read_table(io.BytesIO(b"a,b\n\n1,2\n\n")).row_count == 1


def test_the_names_of_an_unnamed_frame_are_a_header():
    assert read_table(io.BytesIO(b"0,1,2\n5,6,7\n")).columns == ("0", "1", "2")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(content):
    fault = fault_of(content)
    assert fault.code == "empty_input"
    assert fault.fields == {"file": "empty"}


def test_a_header_alone_is_refused():
    assert fault_of(b"a,b\n").code == "empty_input"


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"1.5,2\n3,4\n", "line 1: there is no header"),
        (b"a,\n1,2\n", "line 1: column 2 has no name"),
        (b"a,b,a\n1,2,3\n", "line 1: the column 'a' comes twice"),
        (b"a;b\n1;2\n", "line 1: the columns are not separated by commas"),
        (b"a,b\n1,2\n3\n", "line 3: the row has 1 cell, and the header names 2 columns"),
        (b"a,b\n1,2\n\n1,2,3\n", "line 4: the row has 3 cells"),
        (b'a,b\n"x\ny",2\n1\n', "line 4: the row has 1 cell"),
        (b"a,b\n1,2\n1,\xff\xfe\n", "line 3: byte 3 is not UTF-8"),
        (b"a,b\n1,2\n1,\0\n", "line 3: there is a NUL byte"),
        (b'a,b\n1,"2\n3,4\n', "line 2: a quote is not closed"),
        (b'a,b\n"1"x,2\n', "line 2: a quoted cell goes on"),
        (b"a,b\r1,2\r", "line 1: lines must end with LF or CRLF"),
        (b"a," + b"n" * 251 + b"\n1,2\n", "line 1: the name of column 2"),
    ],
)
def test_a_fault_is_named_with_its_line(content, where):
    fault = fault_of(content)
    assert fault.fields["file"].startswith(where)
    assert fault.fields["file"] in fault.message


def test_a_quote_that_is_never_closed_ends_at_the_longest_cell():
    fault = fault_of(b'a,b\n"' + b"x" * (MAX_CELL_CHARS + 1) + b"\n1,2\n")
    assert "a cell has more than" in fault.fields["file"]


def test_a_row_that_never_ends_is_refused_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(tables, "MAX_ROW_BYTES", 1 << 16)
    endless = io.BytesIO(b'a,b\n"' + b'x\n","' * 200_000)
    with peak_memory() as peak, pytest.raises(Invalid, match="line 2: a row has more than"):
        read_table(endless)
    assert peak.size_bytes < 4 << 20


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "long.csv"
    path.write_bytes(b"a,b,c\n" + b"0.123456,some text,42\n" * 50_000)
    told = subprocess.run([sys.executable, "-c", ALONE, path], cwd=ROOT, capture_output=True, text=True, check=True)
    row_count, peak_bytes = map(int, told.stdout.split())
    assert row_count == 50_000
    assert peak_bytes < 1 << 18


def test_a_preview_reads_no_further_than_it_shows():
    file = io.BytesIO(b"a,b\n" + b"1,2\n" * 10 + b"ragged\n")
    preview = read_preview(file, 3)
    assert preview.rows == [["1", "2"]] * 3
    assert not preview.is_whole


def test_a_preview_of_a_wide_table_says_how_many_columns_it_leaves_out():
    header = ",".join(f"c{number}" for number in range(500))
    preview = read_preview(io.BytesIO(f"{header}\n{header}\n".encode()), 100)
    assert (len(preview.columns), len(preview.rows[0]), preview.columns_left_out) == (200, 200, 300)
    assert read_preview(io.BytesIO(f"{header}\n{header}\n".encode()), 20).columns_left_out == 0


def test_a_preview_cuts_long_cells_and_knows_the_end():
    preview = read_preview(io.BytesIO(b"a\n" + b"x" * 500 + b"\n"), 3)
    assert preview.rows == [["x" * 200]]
    assert preview.is_whole
