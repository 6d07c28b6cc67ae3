"""What a model takes and gives: named fields with dtype and shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from runtimes.errors import InvalidSignature, plain

Batch = np.ndarray | dict[str, np.ndarray]
Layout = Literal["tensor", "columns"]
ClassName = str | int | float | bool

STRING = "string"
NUMERIC_DTYPES = frozenset(
    f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64) if (kind, bits) != ("float", 8)
) | {"bool"}
MAX_FIELDS = 10_000
MAX_DIMENSIONS = 8
MAX_CLASSES = 100_000
MAX_NAME_CHARS = 1_000


@dataclass(frozen=True)
class Field:
    """One named input or output.

    dtype: a numpy name or "string". shape: shape[0] is -1, the rows; other dimensions may be -1 too.
    nullable: a missing value (NaN or None) is allowed.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nullable: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or len(self.name) > MAX_NAME_CHARS:
            raise InvalidSignature("A field's name must be a string of at most 1000 characters.")
        if not isinstance(self.dtype, str) or self.dtype not in NUMERIC_DTYPES | {STRING}:
            raise InvalidSignature(f"Field {plain(self.name, 80)!r} has the unknown dtype {plain(self.dtype, 40)!r}.")
        if not _is_shape(self.shape):
            raise InvalidSignature(
                f"Field {plain(self.name, 80)!r} needs a shape like [-1, 4] whose first number is -1."
            )

    def to_json(self) -> dict[str, Any]:
        """The field as JSON values."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape), "nullable": self.nullable}

    @classmethod
    def from_json(cls, value: object) -> Field:
        """The field that a JSON object describes.

        Raises:
            InvalidSignature: it does not describe one.
        """
        if not isinstance(value, Mapping) or not {"name", "dtype"} <= value.keys():
            raise InvalidSignature("Each field needs a name, a dtype and a shape.")
        shape = value.get("shape", [-1])
        if not isinstance(shape, list | tuple):
            raise InvalidSignature("A field's shape is a list of whole numbers.")
        return cls(value["name"], value["dtype"], tuple(shape), bool(value.get("nullable", False)))


@dataclass(frozen=True)
class Signature:
    """The inputs, outputs and classes of a model.

    layout "tensor": a batch is one (n, ...) array. layout "columns": a batch maps each input's name to an (n,) array.
    classes: the names behind a classifier's probabilities, in their order; None when it is no classifier.
    """

    layout: Layout
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    classes: tuple[ClassName, ...] | None = None

    def __post_init__(self) -> None:
        if self.layout not in ("tensor", "columns"):
            raise InvalidSignature('A signature\'s layout is "tensor" or "columns".')
        if not self.inputs or len(self.inputs) > MAX_FIELDS:
            raise InvalidSignature(f"A signature has between 1 and {MAX_FIELDS} inputs.")
        if self.layout == "tensor" and len(self.inputs) != 1:
            raise InvalidSignature('The layout "tensor" has exactly one input.')
        names = [field.name for field in self.inputs]
        if len(set(names)) != len(names):
            raise InvalidSignature("Two inputs have the same name.")

    def to_json(self) -> dict[str, Any]:
        """The signature as JSON values; `from_json` reads them back."""
        return {
            "layout": self.layout,
            "inputs": [field.to_json() for field in self.inputs],
            "outputs": [field.to_json() for field in self.outputs],
            "classes": None if self.classes is None else list(self.classes),
        }

    @classmethod
    def from_json(cls, value: object) -> Signature:
        """The signature that a JSON object describes.

        Raises:
            InvalidSignature: with a sentence that says what is wrong.
        """
        if not isinstance(value, Mapping):
            raise InvalidSignature("A signature is an object with layout, inputs and outputs.")
        inputs, outputs = value.get("inputs"), value.get("outputs", [])
        if not isinstance(inputs, list | tuple) or not isinstance(outputs, list | tuple):
            raise InvalidSignature("A signature's inputs and outputs are lists of fields.")
        layout = value.get("layout", "tensor" if len(inputs) == 1 else "columns")
        return cls(
            layout,
            tuple(Field.from_json(field) for field in inputs),
            tuple(Field.from_json(field) for field in outputs),
            _classes(value.get("classes")),
        )


def _is_shape(shape: object) -> bool:
    if not isinstance(shape, tuple) or not 1 <= len(shape) <= MAX_DIMENSIONS or shape[0] != -1:
        return False
    return all(type(size) is int and -1 <= size < 2**31 for size in shape)


def _classes(value: object) -> tuple[ClassName, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_CLASSES:
        raise InvalidSignature("Classes are a list of names or numbers.")
    if not all(isinstance(name, str | int | float | bool) for name in value):
        raise InvalidSignature("Classes are a list of names or numbers.")
    return tuple(value)
