"""Tables in files of every format, and what is said of a file that is none."""

from __future__ import annotations

import datetime
import decimal
import io
import json

import pandas as pd
import pytest

from runtimes.table_files import InvalidDataset, table_file
from runtimes.tables import read_table

FRAME = pd.DataFrame(
    {
        "age": [30.0, None, 50.0],
        "city": ["oslo", None, "rome"],
        "member": [True, False, True],
        "since": ["2024-01-31", "2024-02-01", None],
        "left": ["yes", "no", "yes"],
    }
)


def written(format_name: str, frame: pd.DataFrame = FRAME) -> io.BytesIO:
    if format_name == "csv":
        return io.BytesIO(frame.to_csv(index=False).encode())
    if format_name == "jsonl":
        return io.BytesIO(frame.to_json(orient="records", lines=True).encode())
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
    return io.BytesIO(out.getvalue())


@pytest.mark.parametrize("format_name", ["csv", "jsonl", "parquet"])
def test_every_format_gives_the_same_table(format_name: str) -> None:
    table = read_table(written(format_name), "left", is_numeric_target=False, format_name=format_name)
    assert table.target.tolist() == ["yes", "no", "yes"]
    assert [column.dtype.name for _, column in table.features.items()] == ["float64", "object", "bool", "object"]
    assert table.features["age"].fillna(-1).tolist() == [30, -1, 50]
    assert table.features["city"].fillna("-").tolist() == ["oslo", "-", "rome"]
    assert table.features["since"].fillna("-").tolist() == ["2024-01-31", "2024-02-01", "-"]


@pytest.mark.parametrize("format_name", ["csv", "jsonl", "parquet"])
def test_a_table_comes_in_pieces_too(format_name: str) -> None:
    pieces = list(table_file(written(format_name), format_name).frames(2))
    assert [len(piece) for piece in pieces] == [2, 1]
    assert list(pieces[0].columns) == list(pieces[1].columns) == list(FRAME.columns)
    assert [word for piece in pieces for word in piece["left"]] == ["yes", "no", "yes"]


def test_parquets_own_types_become_what_json_has() -> None:
    moment = datetime.datetime(2024, 5, 1, 12)
    frame = pd.DataFrame(
        {
            "at": [moment, None],
            "on": [moment.date(), None],
            "paid": [decimal.Decimal("1.50"), None],
            "kind": pd.Categorical(["a", None]),
        }
    )
    read = table_file(written("parquet", frame), "parquet").frame().astype(object)
    assert read.where(read.notna(), None).to_dict("records") == [
        {"at": "2024-05-01T12:00:00", "on": "2024-05-01", "paid": 1.5, "kind": "a"},
        {"at": None, "on": None, "paid": None, "kind": None},
    ]


def test_a_key_that_a_row_lacks_is_missing() -> None:
    lines = "\n".join(json.dumps(row) for row in [{"a": 1}, {"a": 2, "b": "x"}])
    assert table_file(io.BytesIO(lines.encode()), "jsonl").frame()["b"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "The file is empty"),
        (b'{"a": 1}\n{"a": }\n', "Line 2, column 7 is no JSON"),
        (b'{"a": 1}\n[1]\n', "Line 2 is no JSON object"),
        (b'{"a": 1}\n{"a": {"b": 1}}\n', "Line 2, key 'a': a cell is"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "Line 2, byte 8 is not UTF-8"),
        (b"[" * 100_000, "Line 1 is no JSON"),
    ],
    ids=["empty", "syntax", "list", "nested", "encoding", "deep"],
)
def test_a_fault_in_json_lines_is_told_with_its_place(content: bytes, told: str) -> None:
    with pytest.raises(InvalidDataset, match=told.replace("[", r"\[")):
        table_file(io.BytesIO(content), "jsonl").frame()


def test_a_parquet_file_that_is_none_is_refused() -> None:
    whole = written("parquet").getvalue()
    for content in (b"", b"PAR1PAR1", whole[:-20], whole[:10] + bytes(40) + whole[50:]):
        with pytest.raises(InvalidDataset, match="no Parquet file"):
            table_file(io.BytesIO(content), "parquet").frame()


def test_a_nested_parquet_column_is_refused_by_its_name() -> None:
    frame = pd.DataFrame({"a": [1], "tags": [["x", "y"]]})
    with pytest.raises(InvalidDataset, match=r"Column 'tags' has values of the type list"):
        table_file(written("parquet", frame), "parquet").frame()


def test_a_word_among_the_numbers_of_json_lines_is_told_with_its_line() -> None:
    lines = [{"a": number, "b": 1} for number in range(30)] + [{"a": "oops", "b": 1}]
    file = io.BytesIO("\n".join(json.dumps(line) for line in lines).encode())
    with pytest.raises(InvalidDataset, match="Line 31, column 'a': 'oops' is not a number"):
        read_table(file, "b", is_numeric_target=True, format_name="jsonl")
