"""Arrays in a frame: numeric ones as their bytes, strings as lengths and UTF-8, checked before they are believed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from runtimes.errors import ProtocolFault
from runtimes.signature import MAX_DIMENSIONS, NUMERIC_DTYPES, STRING, Batch

ALIGNMENT = 16
PADDING = bytes(ALIGNMENT)
MISSING = -1  # the length that stands for None
TENSOR_NAME = ""
MAX_NAME_CHARS = 1_000
MAX_VALUES = 1 << 30
MAX_REPLY_VALUES, MAX_STRINGS = 1 << 25, 1 << 21  # of an array in a reply: a byte of it is many as JSON or as objects
COPIED_BYTES = 4096

DTYPES = {name: np.dtype(name).newbyteorder("<") for name in NUMERIC_DTYPES}
NAMES = {dtype: name for name, dtype in DTYPES.items()}  # numpy works a dtype's name out anew at every call

Entry = list[Any]  # [name, dtype, shape, bytes]


class Place(NamedTuple):
    """Where in a frame's body one array lies: from byte `start` to `end`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class BatchPlan(NamedTuple):
    """How a request's body is to be read: one tensor, or columns."""

    places: list[Place]
    is_tensor: bool

    @property
    def rows(self) -> int:
        """How many rows the batch has."""
        return self.places[0].shape[0]

    @property
    def kind(self) -> Hashable:
        """What two batches must have in common to be joined: layout, columns, dtypes and the shape of a row."""
        return self.is_tensor, tuple((place.name, place.dtype, place.shape[1:]) for place in self.places)


def encode(arrays: Mapping[str, np.ndarray]) -> tuple[list[Entry], list[memoryview]]:
    """The entries for a frame's header and the buffers for its body; object arrays are str or None."""
    entries: list[Entry] = []
    buffers: list[memoryview] = []
    for name, array in arrays.items():
        dtype, parts = _encode_one(np.asarray(array))
        size = sum(part.nbytes for part in parts)
        entries.append([name, dtype, list(array.shape), size])
        buffers += [*parts, memoryview(padding_of(size))]
    return entries, buffers


def padding_of(size: int) -> bytes:
    """What follows so many bytes of an array, so that the next one is aligned."""
    return PADDING[: -size % ALIGNMENT]


def encode_batch(batch: Batch) -> tuple[dict[str, Any], list[memoryview]]:
    """The header fields and the buffers of a batch of either layout."""
    layout = "columns" if isinstance(batch, dict) else "tensor"
    entries, buffers = encode(batch if isinstance(batch, dict) else {TENSOR_NAME: batch})
    return {"layout": layout, "arrays": entries}, buffers


def decode_batch(header: Mapping[str, Any], body: memoryview, *, max_rows: int) -> Batch:
    """The batch that a request's frame holds.

    Raises:
        ProtocolFault: the arrays do not agree with each other or with the body.
    """
    return take_batch(plan_batch(header, body.nbytes, max_rows=max_rows), body)


def plan_batch(header: Mapping[str, Any], body_bytes: int, *, max_rows: int) -> BatchPlan:
    """How a request's body is to be read.

    Raises:
        ProtocolFault: the arrays do not agree with each other or with the body.
    """
    found, used = places(header.get("arrays"), body_bytes)
    if used != body_bytes or not found:
        raise ProtocolFault("A batch does not fill its frame.")
    rows = {place.shape[0] if place.shape else -1 for place in found}
    if len(rows) != 1 or not 0 <= min(rows) <= max_rows:
        raise ProtocolFault("A batch's columns differ in length, or are too long.")
    return BatchPlan(found, header.get("layout") == "tensor" and found[0].name == TENSOR_NAME)


def take_batch(plan: BatchPlan, body: memoryview) -> Batch:
    """The batch that a body holds."""
    return _take_one(plan.places[0], body) if plan.is_tensor else take(plan.places, body)


def decode(entries: object, body: memoryview, *, rows: int | None = None) -> tuple[dict[str, np.ndarray], int]:
    """The arrays by name, and how many bytes of the body they took.

    rows: when given, every array's first dimension.

    Raises:
        ProtocolFault: an entry's dtype, shape or size is not what it must be.
    """
    found, used = places(entries, body.nbytes, rows=rows)
    return take(found, body), used


def places(entries: object, body_bytes: int, *, rows: int | None = None, start: int = 0) -> tuple[list[Place], int]:
    """Where in a body of so many bytes the arrays lie, from the byte `start` on, and where they end.

    rows: when given, every array's first dimension.

    Raises:
        ProtocolFault: an entry's dtype, shape or size is not what it must be.
    """
    if not isinstance(entries, Sequence):
        raise ProtocolFault("A frame's arrays are not a list.")
    found: list[Place] = []
    position = start
    for entry in entries:
        name, dtype, shape, size = _checked(entry, rows)
        end = position + size
        if end + -size % ALIGNMENT > body_bytes:
            raise ProtocolFault("A frame's arrays do not fit into its body.")
        found.append(Place(name, dtype, shape, position, end))
        position = end + -size % ALIGNMENT
    if len({place.name for place in found}) != len(found):
        raise ProtocolFault("A frame names an array twice.")
    return found, position


def take(found: Sequence[Place], body: memoryview) -> dict[str, np.ndarray]:
    """The arrays at these places, by name.

    Raises:
        ProtocolFault: the bytes at a place are not what the place says.
    """
    return {place.name: _take_one(place, body) for place in found}


def _take_one(place: Place, body: memoryview) -> np.ndarray:
    return _decode_one(body[place.start : place.end], place.dtype, place.shape)


def is_numeric(array: np.ndarray) -> bool:
    """Whether the array's own bytes, in C order, are what a frame carries."""
    return array.dtype in NAMES


def bytes_of(array: np.ndarray) -> bytes | memoryview:
    """The bytes of a numeric array as a frame carries them; few are copied, which costs less than a view."""
    if array.nbytes <= COPIED_BYTES:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _encode_one(array: np.ndarray) -> tuple[str, list[memoryview]]:
    if array.dtype.kind in "OUST":
        return STRING, _encode_strings(array.ravel().tolist())
    name = NAMES.get(array.dtype) or NAMES.get(array.dtype.newbyteorder("<"))
    if name is None:
        raise TypeError(f"arrays of {array.dtype} cannot be sent")
    plain = np.ascontiguousarray(array, dtype=DTYPES[name])
    return name, [plain.reshape(-1).view(np.uint8).data] if plain.nbytes else []


def _encode_strings(values: list[object]) -> list[memoryview]:
    encoded = [None if value is None else _text(value).encode(errors="replace") for value in values]
    lengths = np.array([MISSING if value is None else len(value) for value in encoded], dtype="<i4")
    text = b"".join(value for value in encoded if value is not None)
    return [memoryview(lengths.tobytes()), memoryview(text)]


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _checked(entry: object, rows: int | None) -> tuple[str, str, tuple[int, ...], int]:
    if not isinstance(entry, list | tuple) or len(entry) != 4:
        raise ProtocolFault("A frame describes an array wrongly.")
    name, dtype, shape, size = entry
    if not isinstance(name, str) or len(name) > MAX_NAME_CHARS or not isinstance(shape, list):
        raise ProtocolFault("A frame describes an array wrongly.")
    if not isinstance(dtype, str) or dtype not in NUMERIC_DTYPES | {STRING}:
        raise ProtocolFault("A frame holds an array of a dtype that is not allowed.")
    if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < 2**31 for n in [*shape, 0]):
        raise ProtocolFault("A frame holds an array of an impossible shape.")
    # rows of nothing count as well: (1, 2**31, 0) has no value, and is lists without end as JSON
    values = math.prod([max(n, 1) for n in shape])
    if values > (MAX_VALUES if rows is None else MAX_STRINGS if dtype == STRING else MAX_REPLY_VALUES):
        raise ProtocolFault("A frame holds an array of too many values.")
    if type(size) is not int or size < 0 or (rows is not None and shape[:1] != [rows]):
        raise ProtocolFault("A frame holds an array of the wrong length.")
    return name, dtype, tuple(shape), size


def _decode_one(data: memoryview, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    count = math.prod(shape)
    if dtype == STRING:
        return _decode_strings(data, count).reshape(shape)
    kind = DTYPES[dtype]
    if count * kind.itemsize != data.nbytes:
        raise ProtocolFault("An array's bytes do not match its shape.")
    if kind.kind == "b":  # any byte but 0 and 1 in a bool array is undefined behaviour
        return np.frombuffer(data, np.uint8).astype(np.bool_).reshape(shape)
    return np.frombuffer(data, kind).reshape(shape)


def _decode_strings(data: memoryview, count: int) -> np.ndarray:
    if count * 4 > data.nbytes:
        raise ProtocolFault("An array's bytes do not match its shape.")
    lengths = np.frombuffer(data[: count * 4], "<i4").tolist()
    text = data[count * 4 :]
    if sum(max(length, 0) for length in lengths) != text.nbytes:
        raise ProtocolFault("An array's strings do not match their lengths.")
    values = np.empty(count, dtype=object)  # never a 'U' array: one long string times n rows exhausts memory
    position = 0
    for index, length in enumerate(lengths):
        if length >= 0:
            values[index] = str(text[position : position + length], "utf-8", "replace")
            position += length
    return values
