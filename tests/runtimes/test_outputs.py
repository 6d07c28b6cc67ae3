"""What a predictor may return, and the names that its parts get."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from runtimes.client import HostClient
from runtimes.errors import ModelError
from runtimes.formats.outputs import named_arrays
from tests.runtimes.bundles import inspected, rejection, served

RETURNED: dict[str, tuple[str, dict[str, list[Any]]]] = {
    "array": ("rows[:, 0]", {"prediction": [1.0, 3.0]}),
    "table": ("rows", {"prediction": [[1.0, 2.0], [3.0, 4.0]]}),
    "list": ("[1, 2]", {"prediction": [1, 2]}),
    "words": ("['a', None]", {"prediction": ["a", None]}),
    "series": ("pd.Series(rows[:, 1], name='total')", {"prediction": [2.0, 4.0]}),
    "frame": (
        "pd.DataFrame({'total': rows.sum(axis=1), 'word': ['a', 'b']})",
        {"total": [3.0, 7.0], "word": ["a", "b"]},
    ),
    "map": ("{'low': rows.min(axis=1), 'high': rows.max(axis=1)}", {"low": [1.0, 3.0], "high": [2.0, 4.0]}),
    "tuple": ("(rows[:, 0], ['x', 'y'])", {"output_0": [1.0, 3.0], "output_1": ["x", "y"]}),
    "tuple of one": ("(rows[:, 0],)", {"prediction": [1.0, 3.0]}),
    "named tuple": ("Pair(rows[:, 0], rows[:, 1])", {"first": [1.0, 3.0], "second": [2.0, 4.0]}),
    "moments": ("pd.to_datetime(['2026-01-02', '2026-03-04'])", {"prediction": ["2026-01-02", "2026-03-04"]}),
    "categories": ("pd.Series(['a', 'b'], dtype='category')", {"prediction": ["a", "b"]}),
}
SOURCE = """
from typing import NamedTuple
import numpy as np
import pandas as pd

class Pair(NamedTuple):
    first: object
    second: object

class Model:
    n_features_in_ = 2

    def predict(self, rows):
        n = len(rows)
        return RETURNED
"""


def files(returned: str) -> dict[str, bytes]:
    return {"model.pkl": b"cauthor\nModel\n)\x81.", "author.py": SOURCE.replace("RETURNED", returned).encode()}


@pytest.mark.parametrize("kind", RETURNED)
def test_outputs_are_named(client: HostClient, kind: str) -> None:
    returned, expected = RETURNED[kind]
    upload = files(returned)
    found = inspected(client, upload, input_example=[[1.0, 2.0], [3.0, 4.0]], signature=DECLARED)

    outputs = served(client, upload, np.array([[1.0, 2.0], [3.0, 4.0]]), found).outputs

    assert [field.name for field in found.signature.outputs] == list(expected)
    told = {name: values.tolist() for name, values in outputs.items()}
    assert {name: [str(v)[:10] if kind == "moments" else v for v in told[name]] for name in told} == expected


DECLARED = {"layout": "tensor", "inputs": [{"name": "input", "dtype": "float64", "shape": [-1, 2]}]}


@pytest.mark.parametrize(
    "returned", ["7", "None", "rows[:1]", "{}", "{'a': rows, 'b': 7}", "[rows, rows[:1]]", "(x for x in rows)"]
)
def test_what_is_not_one_value_a_row_is_refused(client: HostClient, returned: str) -> None:
    rejected = rejection(client, files(returned), signature=DECLARED, input_example=[[1.0, 2.0], [3.0, 4.0]])

    assert rejected.code in ("wrong_output", "signature_mismatch")


def test_a_sparse_matrix_is_an_array() -> None:
    assert named_arrays(sparse.eye(2, format="csr"))["prediction"].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_columns_of_a_frame_without_names_are_numbered() -> None:
    assert list(named_arrays(pd.DataFrame([[1, 2]]))) == ["0", "1"]


@pytest.mark.parametrize(
    ("returned", "sentence"),
    {
        "rows[:1] if n > 2 else rows": "gave 1 values of 'prediction' for 3 rows",
        "7 if n > 2 else rows": "gave no values of 'prediction' for 3 rows",
        "{str(k): rows for k in range(300 if n > 2 else 2)}": "gave 300 outputs, and at most 256",
    }.items(),
)
def test_an_answer_that_does_not_fit_is_the_models_error_and_its_runner_lives(
    client: HostClient, returned: str, sentence: str
) -> None:
    upload = files(returned)
    found = inspected(client, upload, signature=DECLARED, input_example=[[1.0, 2.0], [3.0, 4.0]])
    kills = client.stats().kills

    with pytest.raises(ModelError, match=sentence):
        served(client, upload, np.zeros((3, 2)), found)

    assert len(served(client, upload, np.zeros((2, 2)), found).outputs) in (1, 2)
    assert client.stats().kills == kills


def test_more_outputs_than_are_taken_are_refused(client: HostClient) -> None:
    rejected = rejection(client, files("{str(k): rows for k in range(300)}"), signature=DECLARED)

    assert rejected.code == "wrong_output"
    assert "300 outputs; at most 256" in rejected.reason


def test_long_floats_are_numbers_and_bytes_are_texts() -> None:
    assert named_arrays(np.array([1.5], dtype="longdouble"))["prediction"].tolist() == [1.5]
    assert named_arrays(np.array([b"caf\xc3\xa9", b"\xff"]))["prediction"].tolist() == ["café", "�"]
