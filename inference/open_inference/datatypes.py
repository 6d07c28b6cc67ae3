"""The protocol's datatypes, as numpy has them, and how the values of each look in JSON and as bytes."""

import struct
from collections.abc import Mapping

import numpy as np

from common.errors import Malformed
from inference.decoding import rounded
from runtimes.signature import STRING

BYTES, BFLOAT16 = "BYTES", "BF16"
DTYPES: Mapping[str, np.dtype] = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?",
        "UINT8": "<u1",
        "UINT16": "<u2",
        "UINT32": "<u4",
        "UINT64": "<u8",
        "INT8": "<i1",
        "INT16": "<i2",
        "INT32": "<i4",
        "INT64": "<i8",
        "FP16": "<f2",
        "FP32": "<f4",
        "FP64": "<f8",
    }.items()
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
# What JSON has for the values of each kind of dtype: null stands for what is missing.
JSON_KINDS: Mapping[str, frozenset[type]] = {
    "b": frozenset((bool,)),
    "u": frozenset((int,)),
    "i": frozenset((int,)),
    "f": frozenset((int, float, type(None))),
    "O": frozenset((str, type(None))),
}
LENGTH = struct.Struct("<I")


def datatype_of(dtype: str | np.dtype) -> str:
    """The datatype of a numpy dtype, or of a field of a signature."""
    if dtype == STRING:
        return BYTES
    return NAMES.get(np.dtype(dtype).newbyteorder("<"), BYTES)


def from_json(values: list[object], datatype: str, name: str) -> np.ndarray:
    """The values of a tensor as JSON has them, as a one-dimensional array; strings as objects.

    Raises:
        Malformed: one of them is none of this datatype.
    """
    dtype = np.dtype(object) if datatype == BYTES else DTYPES.get(datatype)
    if dtype is None:
        raise Malformed(f"'{name}': JSON carries no {datatype[:20]}; there are {', '.join((*DTYPES, BYTES))}.")
    if unfit := set(map(type, values)) - JSON_KINDS[dtype.kind]:
        kinds = ", ".join(sorted(kind.__name__ for kind in unfit))
        raise Malformed(f"'{name}' is {datatype}, but among its data is a value of JSON's {kinds}.")
    if datatype == BYTES:
        return np.fromiter(values, dtype=object, count=len(values))
    try:
        return rounded(np.array(values, dtype=np.float64), dtype) if dtype.kind == "f" else np.array(values, dtype)
    except OverflowError as error:
        raise Malformed(f"'{name}': a value does not fit into {datatype}.") from error


def from_bytes(data: memoryview, datatype: str, count: int, name: str) -> np.ndarray:
    """So many values of a tensor as one-dimensional array: over the bytes themselves, where they are numbers.

    Raises:
        Malformed: the bytes are not so many values.
    """
    if datatype == BYTES:
        return _texts(data, count, name)
    dtype = np.dtype("<u2") if datatype == BFLOAT16 else DTYPES.get(datatype)
    if dtype is None:
        raise Malformed(f"'{name}': there is no datatype {datatype[:20]}.")
    if data.nbytes != count * dtype.itemsize:
        raise Malformed(
            f"'{name}' has {data.nbytes} bytes, but {count} values of {datatype} have {count * dtype.itemsize}."
        )
    if datatype == "BOOL":  # any byte but 0 and 1 in a bool array is undefined behaviour
        return np.frombuffer(data, np.uint8).astype(np.bool_)
    values = np.frombuffer(data, dtype)
    return (values.astype(np.uint32) << 16).view(np.float32) if datatype == BFLOAT16 else values


def to_bytes(array: np.ndarray) -> bytes | memoryview:
    """An array as the protocol's bytes."""
    if array.dtype.kind == "O":
        encoded = [("" if value is None else str(value)).encode(errors="replace") for value in array.ravel().tolist()]
        return b"".join(part for value in encoded for part in (LENGTH.pack(len(value)), value))
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return plain.reshape(-1).view(np.uint8).data if plain.size else b""


def _texts(data: memoryview, count: int, name: str) -> np.ndarray:
    if count * LENGTH.size > data.nbytes:
        raise Malformed(f"'{name}' has {data.nbytes} bytes, which are too few for {count} lengths.")
    texts = np.empty(count, dtype=object)
    position = 0
    for index in range(count):
        start = position + LENGTH.size
        length = LENGTH.unpack_from(data, position)[0] if start <= data.nbytes else data.nbytes
        position = start + length
        if position > data.nbytes:
            raise Malformed(f"'{name}': element {index} is longer than the bytes that were sent.")
        texts[index] = _text(data[start:position], index, name)
    if position != data.nbytes:
        raise Malformed(f"'{name}' has {data.nbytes - position} bytes more than its {count} elements.")
    return texts


def _text(data: memoryview, index: int, name: str) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"'{name}': element {index} is not UTF-8, which is all that models take here.") from error
