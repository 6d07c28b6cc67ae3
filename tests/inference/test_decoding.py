"""What a predict body may hold, form by form and error by error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Invalid, Malformed, PlatformError
from inference.decoding import decode
from runtimes.signature import Field, Signature

TENSOR = Signature("tensor", (Field("x", "float64", (-1, 3)),), ())
IMAGES = Signature("tensor", (Field("x", "float32", (-1, 2, 2)),), ())
COLUMNS = Signature(
    "columns",
    (
        Field("age", "int64", (-1,)),
        Field("city", "string", (-1,), nullable=True),
        Field("pay", "float64", (-1,), nullable=True),
    ),
    (),
)


def refusal(body, signature=TENSOR):
    with pytest.raises(PlatformError) as caught:
        decode(body, signature)
    return caught.value


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [[1, 2, 3], [4, 5.5, True]]},
        {"inputs": [[1, 2, 3], [4, 5.5, True]]},
        {"inputs": {"x": [[1, 2, 3], [4, 5.5, True]]}},
        {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2, 3], [4, 5.5, True]]}},
    ],
)
def test_every_form_gives_the_same_array(body):
    decoded = decode(body, TENSOR)
    assert decoded.row_count == 2
    np.testing.assert_array_equal(decoded.batch, [[1, 2, 3], [4, 5.5, 1]])
    assert np.asarray(decoded.batch).dtype == np.float64


def test_an_image_keeps_its_shape():
    decoded = decode({"instances": [[[1, 2], [3, 4]]]}, IMAGES)
    assert isinstance(decoded.batch, np.ndarray)
    assert decoded.batch.shape == (1, 2, 2)
    assert decoded.batch.dtype == np.float32


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [{"age": 3, "city": "Bern", "pay": 1.5}, {"pay": None, "age": 4, "city": None}]},
        {"dataframe_records": [{"age": 3, "city": "Bern", "pay": 1.5}, {"pay": None, "age": 4, "city": None}]},
        {"instances": [[3, "Bern", 1.5], [4, None, None]]},
        {"inputs": {"age": [3, 4], "city": ["Bern", None], "pay": [1.5, None]}},
        {"dataframe_split": {"columns": ["pay", "age", "city"], "data": [[1.5, 3, "Bern"], [None, 4, None]]}},
    ],
)
def test_every_form_gives_the_same_columns(body):
    batch = decode(body, COLUMNS).batch
    assert batch["age"].tolist() == [3, 4]
    assert batch["city"].tolist() == ["Bern", None]
    assert batch["pay"][0] == 1.5
    assert np.isnan(batch["pay"][1])


def test_none_or_several_forms_are_malformed():
    assert isinstance(refusal({}), Malformed)
    assert isinstance(refusal({"instances": [], "inputs": []}), Malformed)


@pytest.mark.parametrize("body", [{"instances": []}, {"dataframe_split": {"data": []}}])
def test_no_rows_is_empty_input(body):
    assert refusal(body).code == "empty_input"


def test_no_rows_of_columns_is_empty_input():
    assert refusal({"inputs": {"age": [], "city": [], "pay": []}}, COLUMNS).code == "empty_input"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([[1, 2]], "2 values, but this model takes 3"),
        ([[1, 2, 3], [1, 2]], "Row 1 has 2 values"),
        ([[1, "2", 3]], "row 0, column 1 is a string"),
        ([[1, None, 3]], "row 0, column 1 is null"),
        ([1, 2, 3], "each row is a list"),
        ([[1, [2], 3]], "is a list"),
        ([{"a": 1}], "an object"),
    ],
)
def test_a_row_that_does_not_fit_is_named(rows, says):
    error = refusal({"instances": rows})
    assert error.code == "signature_mismatch"
    assert says in error.message


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"age": 3, "city": "Bern"}, "Missing: 'pay'"),
        ({"age": 3, "city": "Bern", "pay": 1, "x": 1}, "Unknown: 'x'"),
        ({"age": 3.5, "city": "Bern", "pay": 1}, "column 'age' is 3.5, but the model takes a whole number"),
        ({"age": 3, "city": 4, "pay": 1}, "column 'city' is a number"),
        ({"age": None, "city": "Bern", "pay": 1}, "column 'age' is null"),
        ({"age": 2**80, "city": "Bern", "pay": 1}, "does not fit into int64"),
    ],
)
def test_a_column_that_does_not_fit_is_named(row, says):
    error = refusal({"dataframe_records": [row]}, COLUMNS)
    assert error.code == "signature_mismatch"
    assert says in error.message


@pytest.mark.parametrize("value", [1e39, -1e300, 10**39])
def test_a_number_too_large_for_the_models_floats_is_refused(value):
    error = refusal({"instances": [[[1, 2], [3, value]]]}, IMAGES)
    assert error.code == "signature_mismatch"
    assert "does not fit into float32" in error.message


def test_one_long_string_among_many_numbers_copies_nothing():
    rows = [[1.0, 2.0, 3.0] for _ in range(20_000)] + [["x" * 1_000_000, 1.0, 2.0]]
    assert "row 20000, column 0" in refusal({"instances": rows}).message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(form=st.sampled_from(["instances", "inputs", "dataframe_split", "dataframe_records"]), value=json_values)
@pytest.mark.parametrize("signature", [TENSOR, IMAGES, COLUMNS])
def test_whatever_comes_ends_in_rows_or_in_an_error_of_ours(signature, form, value):
    try:
        decoded = decode({form: value}, signature)
    except (Invalid, Malformed):
        return
    assert decoded.row_count > 0
    columns = decoded.batch.values() if isinstance(decoded.batch, dict) else [decoded.batch]
    assert not any(column.dtype.kind == "f" and np.isinf(column).any() for column in columns)
