"""Arrays in a frame: numeric ones as their bytes, strings as lengths and UTF-8, checked before they are believed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runtimes.errors import ProtocolFault
from runtimes.signature import MAX_DIMENSIONS, NUMERIC_DTYPES, STRING, Batch

ALIGNMENT = 16
PADDING = bytes(ALIGNMENT)
MISSING = -1  # the length that stands for None
TENSOR_NAME = ""
MAX_NAME_CHARS = 1_000

DTYPES = {name: np.dtype(name).newbyteorder("<") for name in NUMERIC_DTYPES}
NAMES = {dtype: name for name, dtype in DTYPES.items()}  # numpy works a dtype's name out anew at every call

Entry = list[Any]  # [name, dtype, shape, bytes]


def encode(arrays: Mapping[str, np.ndarray]) -> tuple[list[Entry], list[memoryview]]:
    """The entries for a frame's header and the buffers for its body; object arrays are str or None."""
    entries: list[Entry] = []
    buffers: list[memoryview] = []
    for name, array in arrays.items():
        dtype, parts = _encode_one(np.asarray(array))
        size = sum(part.nbytes for part in parts)
        entries.append([name, dtype, list(array.shape), size])
        buffers += [*parts, memoryview(PADDING[: -size % ALIGNMENT])]
    return entries, buffers


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
    arrays, used = decode(header.get("arrays"), body)
    if used != body.nbytes or not arrays:
        raise ProtocolFault("A batch does not fill its frame.")
    rows = {array.shape[0] if array.ndim else -1 for array in arrays.values()}
    if len(rows) != 1 or not 0 <= min(rows) <= max_rows:
        raise ProtocolFault("A batch's columns differ in length, or are too long.")
    return arrays[TENSOR_NAME] if header.get("layout") == "tensor" and TENSOR_NAME in arrays else arrays


def decode(entries: object, body: memoryview, *, rows: int | None = None) -> tuple[dict[str, np.ndarray], int]:
    """The arrays by name, and how many bytes of the body they took.

    rows: when given, every array's first dimension.

    Raises:
        ProtocolFault: an entry's dtype, shape or size is not what it must be.
    """
    if not isinstance(entries, Sequence):
        raise ProtocolFault("A frame's arrays are not a list.")
    arrays: dict[str, np.ndarray] = {}
    position = 0
    for entry in entries:
        name, dtype, shape, size = _checked(entry, rows)
        end = position + size
        if end + -size % ALIGNMENT > body.nbytes or name in arrays:
            raise ProtocolFault("A frame's arrays do not fit into its body.")
        arrays[name] = _decode_one(body[position:end], dtype, shape)
        position = end + -size % ALIGNMENT
    return arrays, position


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
