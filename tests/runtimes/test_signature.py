"""Signatures and limits as they travel."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.errors import (
    ArtifactRejected,
    HostUnavailable,
    InvalidSignature,
    ModelError,
    PoolFull,
    RuntimeFault,
    from_message,
    plain,
    to_message,
)
from runtimes.limits import Limits
from runtimes.pool import TooLarge
from runtimes.signature import Field, Signature
from runtimes.tables import InvalidDataset
from runtimes.work import _believed

SIGNATURE = Signature(
    "columns",
    (Field("age", "float64", (-1,), nullable=True), Field("city", "string", (-1,))),
    (Field("prediction", "int64", (-1,)),),
    (0, "yes"),
)


def test_a_signature_comes_back_from_json() -> None:
    assert Signature.from_json(SIGNATURE.to_json()) == SIGNATURE


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"inputs": []},
        {"inputs": [{"name": "a"}]},
        {"inputs": [{"name": "a", "dtype": "object"}]},
        {"inputs": [{"name": "a", "dtype": ["float64"]}]},
        {"inputs": [{"name": "a", "dtype": "float64", "shape": [4]}]},
        {"inputs": [{"name": "a", "dtype": "float64", "shape": [-1, "x"]}]},
        {"inputs": [{"name": "a", "dtype": "float64"}, {"name": "a", "dtype": "float64"}]},
        {"layout": "tensor", "inputs": [{"name": "a", "dtype": "int8"}, {"name": "b", "dtype": "int8"}]},
        {"layout": "odd", "inputs": [{"name": "a", "dtype": "int8"}]},
        {"inputs": [{"name": "a", "dtype": "int8"}], "classes": [[]]},
        {"inputs": [{"name": "a", "dtype": "int8"}], "classes": []},
    ],
)
def test_what_is_no_signature_is_refused_with_a_sentence(value: Any) -> None:
    with pytest.raises(InvalidSignature) as refusal:
        Signature.from_json(value)

    assert refusal.value.message.endswith(".")


def test_limits_come_back_and_unknown_names_are_ignored() -> None:
    limits = Limits(memory_bytes=5, call_seconds=0.5)

    assert Limits.from_json({**limits.to_json(), "of_a_newer_version": 1}) == limits


def test_a_limit_is_positive() -> None:
    with pytest.raises(ValueError, match="rows"):
        Limits(rows=0)


@pytest.mark.parametrize("fault", [ArtifactRejected("load_timeout", "Too slow."), PoolFull("Full.")])
def test_a_fault_comes_back_from_its_message(fault: RuntimeFault) -> None:
    back = from_message(to_message(fault))

    assert (type(back), back.code, back.message) == (type(fault), fault.code, fault.message)


@pytest.mark.parametrize(
    ("fault", "kind"), [(InvalidDataset("Line 3 is no CSV."), ModelError), (TooLarge("Too large."), PoolFull)]
)
def test_a_fault_of_a_narrower_kind_keeps_its_code(fault: RuntimeFault, kind: type[RuntimeFault]) -> None:
    back = from_message(to_message(fault))

    assert (type(back), back.code, back.message) == (kind, fault.code, fault.message)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (InvalidDataset("Line 3 is no CSV."), "invalid_dataset"),
        (InvalidSignature("No inputs."), "invalid_signature"),
        (HostUnavailable("A claim that is not a runner's."), "model_error"),
    ],
)
def test_a_fits_fault_keeps_its_code_where_a_runner_may_say_so(fault: RuntimeFault, code: str) -> None:
    believed = _believed(from_message(to_message(fault)))

    assert (type(believed), believed.code) == (ModelError, code)


@given(st.dictionaries(st.sampled_from(["kind", "code", "message"]), st.text() | st.integers() | st.none()))
def test_any_map_is_some_fault(message: dict[str, Any]) -> None:
    assert isinstance(from_message(message), RuntimeFault)


def test_text_of_an_artifact_is_cut_and_made_printable() -> None:
    text = plain("a\x1b[31m\nb" + "c" * 1000)

    assert len(text) == 500
    assert text.startswith("a?[31m b")
