"""An infer request as it comes: JSON, perhaps followed by the bytes of its tensors, perhaps compressed."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from common.errors import Malformed, TooLarge, UnsupportedMedia
from inference import bodies
from inference.open_inference import datatypes

MOST_DIMENSIONS = 8
MOST_TENSORS = 10_000
MOST_NAME_CHARS = 1_000


@dataclass(frozen=True)
class Tensor:
    """A named input. values: of the tensor's shape."""

    name: str
    values: np.ndarray


@dataclass(frozen=True)
class Wanted:
    """An output that is asked for by name, and whether as bytes (None: as the request says for all)."""

    name: str
    is_binary: bool | None = None


@dataclass(frozen=True)
class InferRequest:
    """A request whose tensors agree with what it says of them; no model has been looked at.

    wanted: the outputs that are asked for; None where none is named. raw: the bytes of the model's one input, where the
    request is nothing else. timeout_s: None where the request names none.
    """

    tensors: tuple[Tensor, ...]
    wanted: tuple[Wanted, ...] | None = None
    id: str | None = None
    is_binary: bool = False
    timeout_s: float | None = None
    raw: memoryview | None = None


def decompressed(content: bytes, encoding: str, most_bytes: int) -> bytes:
    """The body without its Content-Encoding.

    tritonclient keeps the header when it sends the next body as it is, so the body says whether it is compressed.

    Raises:
        UnsupportedMedia: another encoding than gzip and deflate. TooLarge: more than it may be.
        Malformed: it is not what it says.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return content
        case "gzip" | "x-gzip":
            return _inflated(content, 31, most_bytes) if content[:2] == b"\x1f\x8b" else content
        case "deflate":
            is_zlib = len(content) > 1 and content[0] & 15 == 8 and int.from_bytes(content[:2], "big") % 31 == 0
            return _inflated(content, 15, most_bytes) if is_zlib else content
        case other:
            raise UnsupportedMedia(f"Send the body as it is, or as gzip or deflate; not as {other[:40]}.")


def _inflated(content: bytes, window: int, most_bytes: int) -> bytes:
    inflater = zlib.decompressobj(window)
    try:
        found = inflater.decompress(content, most_bytes + 1)
    except zlib.error as error:
        raise Malformed("The body cannot be decompressed.") from error
    if len(found) > most_bytes:
        raise TooLarge(f"A body has at most {most_bytes >> 20} MiB when it is decompressed.")
    if not inflater.eof:
        raise Malformed("The compressed body ends too early.")
    return found


def read(content: bytes, json_length: str | None) -> InferRequest:
    """The request in a body; json_length: its `Inference-Header-Content-Length`.

    Raises:
        Malformed: with what is wrong. TooLarge: it holds more lists or values than are taken at once.
    """
    if json_length is None:
        return _request(bodies.read(content), memoryview(b""))
    if not (json_length.isascii() and json_length.isdigit() and len(json_length) < 12):
        raise Malformed("Inference-Header-Content-Length is a whole number of bytes.")
    if (length := int(json_length)) > len(content):
        raise Malformed(f"The JSON is said to have {length} bytes, but the body has {len(content)}.")
    if length == 0:
        return InferRequest((), raw=memoryview(content), is_binary=True)
    return _request(bodies.read(content[:length]), memoryview(content)[length:])


def _request(said: Mapping[str, Any], data: memoryview) -> InferRequest:
    inputs, parameters = said.get("inputs"), _parameters(said)
    if not isinstance(inputs, list) or not 0 < len(inputs) <= MOST_TENSORS:
        raise Malformed('A request has inputs: [{"name", "shape", "datatype", "data"}, …].')
    tensors = []
    for one in inputs:
        tensor, data = _tensor(one, data)
        tensors.append(tensor)
    if data.nbytes:
        raise Malformed(f"The body has {data.nbytes} bytes more than its tensors.")
    request_id = said.get("id")
    if not isinstance(request_id, str | None):
        raise Malformed("id is a text.")
    is_binary = _flag(parameters, "binary_data_output")
    return InferRequest(tuple(tensors), _wanted(said), request_id, bool(is_binary), _timeout_s(parameters))


def _tensor(said: Any, data: memoryview) -> tuple[Tensor, memoryview]:
    """An input, and the bytes that are left after its own."""
    name, shape, datatype, parameters = _header(said)
    count = math.prod(shape)
    if "shared_memory_region" in parameters:
        raise Malformed(f"'{name}': there is no shared memory with this server; send the data.")
    size = parameters.get("binary_data_size")
    if size is None:
        values = datatypes.from_json(_flat(said.get("data"), shape, name), datatype, name)
        rest = data
    elif type(size) is not int or not 0 <= size <= data.nbytes:
        raise Malformed(f"'{name}': binary_data_size is {str(size)[:20]}, but {data.nbytes} bytes are left.")
    else:
        values, rest = datatypes.from_bytes(data[:size], datatype, count, name), data[size:]
    return Tensor(name, values.reshape(shape)), rest


def _header(said: Any) -> tuple[str, tuple[int, ...], str, Mapping[str, Any]]:
    if not isinstance(said, dict):
        raise Malformed("Each input is an object.")
    name, shape, datatype = said.get("name"), said.get("shape"), said.get("datatype")
    if not isinstance(name, str) or len(name) > MOST_NAME_CHARS:
        raise Malformed("Each input has a name, a text.")
    if not isinstance(datatype, str):
        raise Malformed(f"'{name}' has no datatype, such as FP32.")
    if not isinstance(shape, list) or not 0 < len(shape) <= MOST_DIMENSIONS or not all(map(_is_size, shape)):
        raise Malformed(f"'{name}' has no shape, such as [1, 4].")
    return name, tuple(shape), datatype, _parameters(said)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _flat(values: Any, shape: tuple[int, ...], name: str) -> list[Any]:
    """The values of nested lists, or of one flat one, in row-major order."""
    if not isinstance(values, list):
        raise Malformed(f"'{name}' has no data, and no binary_data_size.")
    flat: list[Any] = values
    for size in shape[1:]:
        if not flat or type(flat[0]) is not list:
            break
        if not all(type(row) is list and len(row) == size for row in flat):
            raise Malformed(f"'{name}': the data is not of the shape {list(shape)}.")
        flat = list(chain.from_iterable(flat))
    if len(flat) != math.prod(shape):
        raise Malformed(f"'{name}' has {len(flat)} values, but the shape {list(shape)} has {math.prod(shape)}.")
    return flat


def _wanted(said: Mapping[str, Any]) -> tuple[Wanted, ...] | None:
    outputs = said.get("outputs")
    if outputs is None or outputs == []:
        return None
    if (
        not isinstance(outputs, list)
        or len(outputs) > MOST_TENSORS
        or not all(isinstance(one, dict) for one in outputs)
    ):
        raise Malformed('outputs is [{"name"}, …].')
    return tuple(_wanted_one(one) for one in outputs)


def _wanted_one(said: Mapping[str, Any]) -> Wanted:
    parameters = _parameters(said)
    if not isinstance(said.get("name"), str):
        raise Malformed("Each output has a name, a text.")
    if "classification" in parameters:
        raise Malformed("There is no classification of outputs here: ask for the output 'probabilities'.")
    if "shared_memory_region" in parameters:
        raise Malformed("There is no shared memory with this server.")
    return Wanted(said["name"], _flag(parameters, "binary_data"))


def _parameters(said: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = said.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise Malformed("parameters is an object.")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str) -> bool | None:
    value = parameters.get(name)
    if not isinstance(value, bool | None):
        raise Malformed(f"{name} is true or false.")
    return value


def _timeout_s(parameters: Mapping[str, Any]) -> float | None:
    """The request's `timeout`, which is in microseconds."""
    value = parameters.get("timeout")
    if value is None or value == 0:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise Malformed("timeout is a number of microseconds.")
    return float(min(value, 10**12)) / 1e6
