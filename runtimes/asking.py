"""Asking a runner over its own socket: a thread's connection, and the answers that are believed.

Imports numpy and msgpack only. Everything that a runner answers is checked before it is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtimes import addresses, arrays
from runtimes.batching import rows_of
from runtimes.errors import ModelError, ProtocolFault, RuntimeFault, from_message
from runtimes.limits import Limits
from runtimes.messages import Caps, Connection, EndOfStream, Frame
from runtimes.protocol import Prediction
from runtimes.signature import Batch

TOGETHER_BYTES = 48 << 10  # of requests that are sent before an answer is read: what a socket takes without a reader
ENTRY_BYTES = 64  # about what an array's entry takes in a header
MAX_OUTPUTS = 256
PROBABILITIES = "probabilities"


@dataclass(frozen=True)
class Question:
    """One of several requests to a runner that leave together."""

    batch: Batch
    probabilities: bool = False


@dataclass(frozen=True)
class Way:
    """Where a version's runner listens, which of its runners that is, and what it may answer."""

    path: str
    generation: int
    limits: Limits


class RunnerConnection:
    """One thread's connection to one runner, which takes no request that names another."""

    def __init__(self, key: str, way: Way, timeout_s: float) -> None:
        try:
            self._sock = addresses.connect(addresses.path_of(way.path), timeout_s)
        except OSError as error:
            raise EndOfStream from error
        self._key, self.generation = key, way.generation
        self._connection = Connection(self._sock.fileno(), Caps(body_bytes=way.limits.reply_bytes))
        self._ids = itertools.count(1)

    def call(self, batch: Batch, rows: int, *, probabilities: bool, deadline: float) -> Prediction:
        """One request and its checked answer."""
        header, buffers = arrays.encode_batch(batch)
        request_id = self._send(header, buffers, deadline, probabilities=probabilities)
        return self._receive(request_id, rows, deadline, probabilities=probabilities)

    def call_together(self, questions: Sequence[Question], deadline: float) -> list[Prediction | ModelError]:
        """Each one's checked answer, or what the model raised on it. What fits into the socket is sent before the first
        answer is read, so that the runner can predict it as one batch."""
        answers: list[Prediction | ModelError] = []
        waiting: list[tuple[int, Question]] = []
        sent_bytes = 0
        for question in questions:
            header, buffers = arrays.encode_batch(question.batch)
            size = sum(buffer.nbytes for buffer in buffers)
            if waiting and sent_bytes + size > TOGETHER_BYTES:
                answers += self._receive_all(waiting, deadline)
                waiting, sent_bytes = [], 0
            request_id = self._send(header, buffers, deadline, probabilities=question.probabilities)
            waiting.append((request_id, question))
            sent_bytes += size + len(header["arrays"]) * ENTRY_BYTES
        return answers + self._receive_all(waiting, deadline)

    def _receive_all(self, waiting: Sequence[tuple[int, Question]], deadline: float) -> list[Prediction | ModelError]:
        answers: list[Prediction | ModelError] = []
        for request_id, question in waiting:
            try:
                rows = rows_of(question.batch)
                answers.append(self._receive(request_id, rows, deadline, probabilities=question.probabilities))
            except ModelError as fault:
                answers.append(fault)
        return answers

    def _send(
        self, header: Mapping[str, Any], buffers: Sequence[memoryview], deadline: float, *, probabilities: bool
    ) -> int:
        request_id = next(self._ids)
        asked = {"id": request_id, "key": self._key, "generation": self.generation, PROBABILITIES: probabilities}
        self._connection.send({**header, **asked}, buffers, deadline)
        return request_id

    def _receive(self, request_id: int, rows: int, deadline: float, *, probabilities: bool) -> Prediction:
        frame = self._connection.receive(deadline)
        if frame.header.get("id") != request_id:
            raise ProtocolFault("A runner answered another question.")
        if frame.header.get("ok") is not True:
            raise _model_error(frame.header)
        return decode_prediction(frame, rows, probabilities=probabilities)

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()


def decode_prediction(frame: Frame, rows: int, *, probabilities: bool) -> Prediction:
    """The prediction that a reply holds, if all of it is what a prediction may be.

    Raises:
        ProtocolFault: a dtype, shape, row count or size is wrong.
    """
    outputs, used = arrays.decode(frame.header.get("outputs"), frame.body, rows=rows)
    if not 0 < len(outputs) <= MAX_OUTPUTS:
        raise ProtocolFault("A runner answered no outputs, or too many.")
    if not probabilities:
        return Prediction(outputs)
    more, _ = arrays.decode(frame.header.get(PROBABILITIES), frame.body[used:], rows=rows)
    table = more.get(PROBABILITIES)
    if table is None or table.ndim != 2 or table.dtype.kind != "f":
        raise ProtocolFault("A runner answered no table of probabilities.")
    return Prediction(outputs, table)


def _model_error(header: Mapping[str, Any]) -> RuntimeFault:
    fault = header.get("fault")
    told = from_message(fault) if isinstance(fault, Mapping) else ProtocolFault("A runner's error is unreadable.")
    return told if isinstance(told, ModelError) else ProtocolFault("A runner claimed an error that is not a model's.")
