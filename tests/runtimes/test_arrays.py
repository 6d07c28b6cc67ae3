"""Arrays in frames."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from runtimes import arrays
from runtimes.errors import ProtocolFault
from runtimes.signature import NUMERIC_DTYPES

NUMERIC = numpy_st.arrays(
    dtype=st.sampled_from(sorted(NUMERIC_DTYPES)).map(np.dtype), shape=numpy_st.array_shapes(max_dims=3, min_side=0)
)
TEXTS = st.lists(st.none() | st.text(max_size=8), max_size=20)


def through(given_arrays: dict[str, np.ndarray], rows: int | None = None) -> dict[str, np.ndarray]:
    entries, buffers = arrays.encode(given_arrays)
    decoded, used = arrays.decode(entries, memoryview(b"".join(buffers)), rows=rows)
    assert used == sum(buffer.nbytes for buffer in buffers)
    return decoded


def of_texts(values: list[str | None]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@given(NUMERIC, NUMERIC)
def test_numbers_come_back_as_they_were(first: np.ndarray, second: np.ndarray) -> None:
    back = through({"a": first, "b": second})

    np.testing.assert_array_equal(back["a"], first)
    np.testing.assert_array_equal(back["b"], second)
    assert back["a"].dtype == first.dtype


@given(TEXTS)
def test_strings_and_missing_ones_come_back_as_they_were(values: list[str | None]) -> None:
    back = through({"a": of_texts(values)})["a"]

    assert back.dtype == object
    assert back.tolist() == values


def test_a_lone_surrogate_does_not_break_the_frame() -> None:
    assert through({"a": of_texts(["\ud800", "b"])})["a"].tolist()[1] == "b"


def test_a_batch_keeps_its_layout() -> None:
    for batch in (np.ones((2, 3)), {"a": np.ones(2), "b": of_texts(["x", None])}):
        header, buffers = arrays.encode_batch(batch)
        back = arrays.decode_batch(header, memoryview(b"".join(buffers)), max_rows=10)
        assert isinstance(back, dict) == isinstance(batch, dict)


@pytest.mark.parametrize(
    ("entry", "body"),
    [
        (["a", "O", [1], 8], bytes(8)),
        (["a", "<U1000000000", [1], 8], bytes(8)),
        (["a", "float64", [1 << 40], 8], bytes(8)),
        (["a", "float64", [-1], 8], bytes(8)),
        (["a", "float64", [2], 8], bytes(16)),
        (["a", "float64", [1], 1 << 60], bytes(16)),
        (["a", "float64", [1], -8], bytes(16)),
        (["a", "float64", [True], 8], bytes(16)),
        (["a", "string", [1 << 30], 16], bytes(16)),
        (["a", "string", [1], 16], (100).to_bytes(4, "little") + bytes(12)),
        (["a", "float64", [1] * 9, 8], bytes(16)),
        ([5, "float64", [1], 8], bytes(16)),
        (["a", "float64"], bytes(16)),
        ("a", bytes(16)),
        (["a", ["float64"], [1], 8], bytes(16)),
    ],
)
def test_a_lying_entry_is_a_protocol_fault(entry: Any, body: bytes) -> None:
    with pytest.raises(ProtocolFault):
        arrays.decode([entry], memoryview(body))


def test_a_wrong_row_count_is_a_protocol_fault() -> None:
    entries, buffers = arrays.encode({"a": np.ones(3)})

    with pytest.raises(ProtocolFault):
        arrays.decode(entries, memoryview(b"".join(buffers)), rows=2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=20,
)


@given(JSON, st.binary(max_size=64))
def test_any_description_is_arrays_or_a_protocol_fault(entries: Any, body: bytes) -> None:
    with suppress(ProtocolFault):
        arrays.decode(entries, memoryview(body))


def test_bytes_that_are_no_bool_become_one() -> None:
    decoded, _ = arrays.decode([["a", "bool", [3], 3]], memoryview(bytes([0, 1, 200]) + bytes(13)))

    assert decoded["a"].tolist() == [False, True, True]
    assert decoded["a"].view(np.uint8).max() == 1
