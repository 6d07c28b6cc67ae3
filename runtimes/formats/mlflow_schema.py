"""MLflow's signatures in this package's terms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from runtimes.errors import InvalidSignature, plain
from runtimes.signature import NUMERIC_DTYPES, STRING, Field, Signature

INPUT_NAME = "input"
DTYPES: Mapping[str, str] = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": STRING,
}


class _Unusable(ValueError):
    """A part of a signature that has no counterpart here."""


def signature_of(declared: Any, notes: list[str]) -> dict[str, Any] | None:
    """The signature in an MLmodel, as JSON; None, and a note that says why, where it cannot be used.

    Outputs are left out: an inspection finds them.
    """
    if not isinstance(declared, Mapping) or not declared.get("inputs"):
        return None
    try:
        columns = json.loads(declared["inputs"])
        return _signature(columns).to_json()
    except (_Unusable, InvalidSignature) as error:
        notes.append(plain(f"The MLmodel's signature was not used: {error}"))
    except (ValueError, TypeError, AttributeError, RecursionError):
        notes.append("The MLmodel's signature was not used: it cannot be read.")
    return None


def fits(example: Any, signature: Mapping[str, Any]) -> bool:
    """Whether an example has the layout of a signature: named columns, or rows."""
    is_columns: bool = signature["layout"] == "columns"
    return isinstance(example, Mapping) == is_columns


def _signature(columns: list[Mapping[str, Any]]) -> Signature:
    if not isinstance(columns, list) or not columns:
        raise _Unusable("it names no inputs")
    if len(columns) == 1 and not columns[0].get("name"):
        return Signature("tensor", (_field(columns[0], INPUT_NAME),), ())
    names = [column.get("name") for column in columns]
    if not all(isinstance(name, str) and name for name in names):
        raise _Unusable("its columns have no names")
    return Signature("columns", tuple(_field(column, column["name"]) for column in columns), ())


def _field(column: Mapping[str, Any], name: str) -> Field:
    if column.get("type") == "tensor":
        return _tensor(column["tensor-spec"], name)
    dtype = DTYPES.get(str(column.get("type")))
    if dtype is None:
        raise _Unusable(f"the column '{plain(name, 60)}' is of the type {plain(column.get('type'), 40)}")
    return Field(
        name, dtype, (-1,), nullable=column.get("required") is False and dtype in ("float32", "float64", STRING)
    )


def _tensor(spec: Mapping[str, Any], name: str) -> Field:
    dtype = STRING if str(spec["dtype"]) in ("str", "object") else str(spec["dtype"])
    shape = tuple(spec["shape"])
    if dtype not in NUMERIC_DTYPES | {STRING} or not shape or shape[0] != -1:
        raise _Unusable(f"the tensor '{plain(name, 60)}' has the dtype {plain(dtype, 40)} and the shape {list(shape)}")
    return Field(name, dtype, shape)
