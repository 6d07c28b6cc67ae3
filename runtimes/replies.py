"""A runner's replies as bytes: a header is packed once for all replies that differ by their id and numbers alone."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np

from runtimes import arrays
from runtimes.messages import ID, pack_round_id
from runtimes.protocol import Prediction

PROBABILITIES = "probabilities"
MAX_HEADS = 64


class Head(NamedTuple):
    """The bytes before and after a reply's id, and what pads each of its arrays."""

    start: bytes
    middle: bytes
    paddings: tuple[bytes, ...]


class Replies:
    """Packs a runner's answers. Its one thread alone uses it."""

    def __init__(self) -> None:
        self._heads: dict[Hashable, Head] = {}

    def pack(self, request_id: int, prediction: Prediction) -> list[bytes | memoryview]:
        """The parts of the frame that answers a request."""
        table = prediction.probabilities
        values = [*prediction.outputs.values(), *(() if table is None else (table,))]
        kind = tuple(prediction.outputs), *((value.dtype, value.shape) for value in values)
        head = self._heads.get(kind)
        if head is None:
            return self._pack_anew(request_id, prediction, values, kind)
        parts: list[bytes | memoryview] = [head.start, ID.pack(request_id), head.middle]
        for value, padding in zip(values, head.paddings, strict=True):
            parts += (arrays.bytes_of(value), padding)
        return parts

    def _pack_anew(
        self, request_id: int, prediction: Prediction, values: list[np.ndarray], kind: Hashable
    ) -> list[bytes | memoryview]:
        fields, buffers = encode_prediction(prediction)
        start, middle = pack_round_id({"ok": True, **fields}, sum(buffer.nbytes for buffer in buffers))
        if all(map(arrays.is_numeric, values)):
            if len(self._heads) >= MAX_HEADS:
                self._heads.clear()
            self._heads[kind] = Head(start, middle, tuple(arrays.padding_of(value.nbytes) for value in values))
        return [start, ID.pack(request_id), middle, *buffers]


def encode_prediction(prediction: Prediction) -> tuple[dict[str, Any], list[memoryview]]:
    """The header fields and buffers of a reply: the outputs, then the probabilities if there are any."""
    entries, buffers = arrays.encode(prediction.outputs)
    header: dict[str, Any] = {"outputs": entries}
    if prediction.probabilities is not None:
        more, more_buffers = arrays.encode({PROBABILITIES: prediction.probabilities})
        header[PROBABILITIES] = more
        buffers = buffers + more_buffers
    return header, buffers
