"""Tables with predictions: what fits is asked, what does not gets an error, and the copy is of the file's own kind."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from runtimes.client import HostClient
from runtimes.conforming import conform
from runtimes.errors import Cancelled, ModelError
from runtimes.limits import Limits
from runtimes.protocol import Prediction
from runtimes.signature import Field, Signature
from runtimes.table_files import InvalidDataset
from runtimes.tabulation import Answered, Chunk, tabulate

SIGNATURE = Signature(
    "columns",
    (Field("age", "float64", (-1,)), Field("city", "string", (-1,), nullable=True)),
    (Field("prediction", "int64", (-1,)),),
    classes=("no", "yes"),
)
TABLE = pd.DataFrame({"id": ["007", "8"], "age": [1.5, 20.0], "city": ["Bonn", None]})


def rounded(chunk: Chunk) -> Answered:
    """The answer of a model that rounds the age."""
    assert isinstance(chunk.batch, dict)
    age = chunk.batch["age"]
    return Answered({"prediction": np.round(age).astype(np.int64)}, np.column_stack([1 - age / 100, age / 100]), {})


@pytest.fixture
def tabulated(client: HostClient) -> Callable[..., Any]:
    """`tabulated(bytes, format)`: the copy's bytes."""

    def run(data: bytes, format_name: str, answer: Callable[[Chunk], Answered] = rounded, **options: Any) -> bytes:
        out = io.BytesIO()
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            fd = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)
            usual: dict[str, Any] = {"probabilities": True, "known": 0, "is_cancelled": lambda: False}
            try:
                tabulate(
                    client,
                    table_fd=fd,
                    format_name=format_name,
                    signature=SIGNATURE,
                    answer=answer,
                    out=out,
                    limits=Limits(),
                    **usual | options,
                )
            finally:
                os.close(fd)
        return out.getvalue()

    return run


def test_a_csv_file_keeps_its_cells_and_gets_predictions(tabulated: Callable[..., bytes]) -> None:
    result = tabulated(b'id,age,city,error\n007,1.50,"a, b",x\n8,20,NA,\n', "csv")

    assert result.decode().splitlines() == [
        "id,age,city,error,prediction,probability_no,probability_yes,error_",
        '007,1.50,"a, b",x,2,0.985,0.015,',
        "8,20,NA,,20,0.8,0.2,",
    ]


def test_json_lines_come_back_as_json_lines(tabulated: Callable[..., bytes]) -> None:
    lines = tabulated(b'{"id": 7, "age": 1.5, "city": "K\xc3\xb6ln"}\n{"age": 20, "id": 8}\n', "jsonl")

    rows = [json.loads(line) for line in lines.splitlines()]
    assert rows[0] == {
        "id": 7,
        "age": 1.5,
        "city": "Köln",
        "prediction": 2,
        "probability_no": 0.985,
        "probability_yes": 0.015,
        "error": None,
    }
    assert (rows[1].get("city"), rows[1]["prediction"]) == (None, 20)


def test_a_parquet_file_keeps_its_types(tabulated: Callable[..., bytes]) -> None:
    moment = pd.Timestamp("2026-01-02")
    result = tabulated(TABLE.assign(at=moment, n=np.int32(3)).to_parquet(index=False), "parquet")

    frame = pd.read_parquet(io.BytesIO(result))
    assert frame["prediction"].tolist() == [2, 20]
    assert frame["at"].tolist() == [moment, moment]
    assert frame["n"].dtype == np.int32
    assert frame["error"].isna().all()


@pytest.mark.parametrize("format_name", ["csv", "jsonl", "parquet"])
def test_a_row_that_does_not_fit_has_an_error_and_the_others_their_predictions(
    tabulated: Callable[..., bytes], format_name: str
) -> None:
    frame = pd.DataFrame({"age": ["1", "old", None, "4"], "city": "x"})
    data = {
        "csv": lambda: frame.to_csv(index=False).encode(),
        "jsonl": lambda: frame.to_json(orient="records", lines=True).encode(),
        "parquet": lambda: frame.to_parquet(index=False),
    }[format_name]()
    readers: dict[str, Callable[[Any], pd.DataFrame]] = {
        "csv": pd.read_csv,
        "jsonl": lambda file: pd.read_json(file, lines=True),
        "parquet": pd.read_parquet,
    }

    found = readers[format_name](io.BytesIO(tabulated(data, format_name)))

    assert found["error"].fillna("").tolist() == [
        "",
        "column 'age': 'old' is not a number",
        "column 'age': the value is missing",
        "",
    ]
    assert found["prediction"].fillna(-1).tolist() == [1, -1, -1, 4]


def test_cells_with_line_ends_and_odd_separators_stay_whole(tabulated: Callable[..., bytes]) -> None:
    data = 'age,city\r\n1,"two\nlines"\r\n2,"a ""b"" \u2028"\r\n\r\n'.encode()

    def answer(chunk: Chunk) -> Answered:
        return Answered({}, None, {0: "bad,\nvery bad", 1: "x\u2028"})

    result = tabulated(data, "csv", answer, probabilities=False).decode()

    rows = list(csv.reader(io.StringIO(result, newline="")))
    assert rows[1:] == [["1", "two\nlines", "", "bad, very bad"], ["2", 'a "b" \u2028', "", "x"]]


def test_what_the_model_refuses_has_the_models_error(tabulated: Callable[..., bytes]) -> None:
    def answer(chunk: Chunk) -> Answered:
        return Answered.of(Prediction({"prediction": np.array([5])}), {0: "too young"})

    result = tabulated(b"age,city\n1,a\n2,b\n", "csv", answer, probabilities=False)

    assert result.decode().splitlines() == ["age,city,prediction,error", "1,a,,too young", "2,b,5,"]


def test_chunks_that_are_known_are_not_asked_again(tabulated: Callable[..., bytes]) -> None:
    data = b"age,city\n" + b"1,a\n" * 5_000
    asked: list[Chunk] = []

    def first(chunk: Chunk) -> Answered:
        asked.append(chunk)
        return rounded(chunk)

    whole = tabulated(data, "csv", first)
    kept = [rounded(chunk) for chunk in asked]
    later: list[Chunk] = []

    def second(chunk: Chunk) -> Answered:
        later.append(chunk)
        return kept[chunk.number] if chunk.batch is None else rounded(chunk)

    assert tabulated(data, "csv", second, known=2) == whole
    assert [chunk.batch is None for chunk in later] == [True, True, False]
    assert sum(chunk.rows for chunk in later) == 5_000


def test_answers_survive_being_kept() -> None:
    answered = Answered({"prediction": np.array(["a", None], dtype=object)}, np.array([[0.5], [1.0]]), {3: "odd"})
    header, buffers = answered.to_frame()

    kept = Answered.from_frame(header, memoryview(b"".join(buffers)))

    assert kept.outputs["prediction"].tolist() == ["a", None]
    assert kept.probabilities is not None
    assert (kept.probabilities.tolist(), kept.faults) == ([[0.5], [1.0]], {3: "odd"})


@pytest.mark.parametrize(
    ("data", "format_name", "sentence"),
    [
        (b"age\n1\n", "csv", "lacks columns that the model takes: 'city'"),
        (b"age,city\n1\n", "csv", "Line 2 has 1 cells instead of 2"),
        (b"age,city\n", "csv", "no rows"),
        (b"not json\n", "jsonl", "Line 1, column 1 is no JSON"),
        (b"PAR1 nothing", "parquet", "no Parquet file"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(
    tabulated: Callable[..., bytes], data: bytes, format_name: str, sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence) as caught:
        tabulated(data, format_name)
    assert caught.value.code == "invalid_dataset"


def test_work_that_is_cancelled_ends(tabulated: Callable[..., bytes]) -> None:
    with pytest.raises(Cancelled):
        tabulated(b"age,city\n" + b"1,a\n" * 5_000, "csv", is_cancelled=lambda: True)


def test_whole_numbers_and_truths_are_checked() -> None:
    fields = (Field("n", "int8", (-1,)), Field("b", "bool", (-1,)))
    frame = pd.DataFrame({"n": ["1", "1.5", "300", "4"], "b": ["true", "False", "1", "maybe"]})

    conformed = conform(frame, Signature("columns", fields, ()))

    assert isinstance(conformed.batch, dict)
    assert conformed.batch["n"].tolist() == [1]
    assert conformed.batch["b"].tolist() == [True]
    assert {place: sentence.split(":")[0] for place, sentence in conformed.faults.items()} == {
        1: "column 'n'",
        2: "column 'n'",
        3: "column 'b'",
    }


def test_a_model_of_unnamed_inputs_takes_the_columns_in_their_order() -> None:
    signature = Signature("tensor", (Field("input", "float32", (-1, 2)),), ())

    batch = conform(pd.DataFrame({"x": [1, 2], "y": [3, 4]}), signature).batch

    assert np.asarray(batch).tolist() == [[1, 3], [2, 4]]
    with pytest.raises(InvalidDataset, match="the file has 3 columns"):
        conform(pd.DataFrame({"x": [1], "y": [1], "z": [1]}), signature)


def test_a_number_too_large_for_the_models_floats_is_a_fault_of_its_row() -> None:
    frame = pd.DataFrame({"x": [1.5, 1e39, float("inf")]})

    conformed = conform(frame, Signature("columns", (Field("x", "float32", (-1,)),), ()))

    assert conformed.faults == {1: "column 'x': '1e+39' is too large for float32"}
    assert isinstance(conformed.batch, dict)
    assert conformed.batch["x"].tolist() == [1.5, float("inf")]
