"""A prediction as the protocol's answer: JSON, or JSON followed by the bytes of its tensors."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from django.http import HttpResponse

from common.errors import NotFound
from inference.open_inference import datatypes
from inference.open_inference.requests import InferRequest, Wanted
from inference.predictions import checked_size
from runtimes.client import Prediction
from runtimes.signature import Signature

PROBABILITIES = "probabilities"
JSON_LENGTH = "Inference-Header-Content-Length"
COMPRESSED_FROM_BYTES = 1024
FAST = 1  # zlib's level: the answer is waited for


def has_probabilities(signature: Signature) -> bool:
    """Whether the model's probabilities are an output besides its own."""
    return bool(signature.classes) and all(field.name != PROBABILITIES for field in signature.outputs)


def wants_probabilities(request: InferRequest, signature: Signature) -> bool:
    """Whether the request asks for them: by name, since a classifier may have none."""
    return has_probabilities(signature) and any(one.name == PROBABILITIES for one in request.wanted or ())


def render(
    request: InferRequest, prediction: Prediction, *, model_name: str, number: int, accepts: str = ""
) -> HttpResponse:
    """The answer; accepts: the request's Accept-Encoding.

    Raises:
        NotFound: an output was asked for that the model does not have. Invalid: the answer is too large for JSON.
    """
    outputs = _outputs(request, prediction)
    parts: list[bytes | memoryview] = []
    described = [_described(one, array, request, parts) for one, array in outputs]
    body: dict[str, Any] = {"model_name": model_name, "model_version": str(number), "outputs": described}
    if request.id is not None:
        body["id"] = request.id
    head = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    if not parts:
        return _sent(head, "application/json", accepts)
    response = _sent(b"".join((head, *parts)), "application/octet-stream", accepts)
    response[JSON_LENGTH] = str(len(head))
    return response


def _outputs(request: InferRequest, prediction: Prediction) -> list[tuple[Wanted, np.ndarray]]:
    arrays: Mapping[str, np.ndarray] = prediction.outputs
    if prediction.probabilities is not None:
        checked_size(prediction.probabilities)
        arrays = {**arrays, PROBABILITIES: prediction.probabilities.astype(np.float64, copy=False)}
    wanted = tuple(map(Wanted, arrays)) if request.wanted is None else request.wanted
    for one in wanted:
        if one.name not in arrays:
            known = ", ".join(f"'{name}'" for name in arrays)
            raise NotFound(f"The model has no output '{one.name[:100]}'; it has {known}.")
    return [(one, arrays[one.name]) for one in wanted]


def _described(
    one: Wanted, array: np.ndarray, request: InferRequest, parts: list[bytes | memoryview]
) -> dict[str, Any]:
    """An output's entry in the JSON; its bytes, where they are asked for, go to `parts`."""
    entry: dict[str, Any] = {
        "name": one.name,
        "datatype": datatypes.datatype_of(array.dtype),
        "shape": list(array.shape),
    }
    if request.is_binary if one.is_binary is None else one.is_binary:
        data = datatypes.to_bytes(array)
        parts.append(data)
        entry["parameters"] = {"binary_data_size": len(data)}
        return entry
    checked_size(array)
    if array.dtype.kind == "O":
        entry["data"] = ["" if value is None else str(value) for value in array.ravel().tolist()]
    else:
        entry["data"] = np.ascontiguousarray(array).reshape(-1)
    return entry


def _sent(content: bytes, content_type: str, accepts: str) -> HttpResponse:
    encoding = _encoding(accepts) if len(content) >= COMPRESSED_FROM_BYTES else None
    if encoding is None:
        return HttpResponse(content, content_type=content_type)
    deflater = zlib.compressobj(FAST, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    response = HttpResponse(deflater.compress(content) + deflater.flush(), content_type=content_type)
    response["Content-Encoding"], response["Vary"] = encoding, "Accept-Encoding"
    return response


def _encoding(accepts: str) -> str | None:
    """gzip or deflate, if the client takes one of them."""
    taken = {part.partition(";")[0].strip() for part in accepts.lower().split(",") if not part.strip().endswith(";q=0")}
    return next((encoding for encoding in ("gzip", "deflate") if encoding in taken), None)
