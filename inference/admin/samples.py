"""A row that a version takes, to begin with: from its example, or made up from its signature."""

from collections.abc import Mapping, Sequence
from typing import Any

from runtimes.signature import STRING, Field, Signature

MOST_ZEROS = 4096


def sample_row(signature: Signature, example: Any) -> Any:
    """A row as JSON values: an object of columns, or a list (nested for tensors of more than two axes)."""
    found = _first_row(example)
    if signature.layout == "columns":
        row = found if isinstance(found, Mapping) else {}
        return {field.name: row.get(field.name, _made_up(field)) for field in signature.inputs}
    return found if isinstance(found, list) else _zeros([abs(size) for size in signature.inputs[0].shape[1:]])


def _first_row(example: Any) -> Any:
    """The first row of a declared example: rows, records, columns by name, or {columns, data}."""
    if isinstance(example, Mapping):
        if {"columns", "data"} <= example.keys():
            return dict(zip(example["columns"], example["data"][0], strict=False)) if example["data"] else None
        return {name: values[0] if isinstance(values, list) and values else values for name, values in example.items()}
    if isinstance(example, Sequence) and not isinstance(example, str) and example:
        return example[0] if isinstance(example[0], Mapping | list) else list(example)
    return None


def _made_up(field: Field) -> Any:
    return "" if field.dtype == STRING else 0


def _zeros(sizes: Sequence[int]) -> Any:
    """Zeros of this shape; of a shape with very many, none: nobody types them."""
    count = 1
    for size in sizes:
        count *= max(size, 1)
    if count > MOST_ZEROS:
        return []
    zeros: Any = 0.0
    for size in reversed(sizes):
        zeros = [zeros] * max(size, 1)
    return zeros
