"""Asking a runner over its own socket: a thread's connection, and the answers that are believed.

Imports numpy and msgpack only. Everything that a runner answers is checked before it is used.
"""

from __future__ import annotations

import itertools
import socket
import struct
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from runtimes import addresses, arrays
from runtimes.batching import rows_of
from runtimes.errors import DeadlineExceeded, ModelError, ProtocolFault, RuntimeFault, from_message
from runtimes.limits import Limits
from runtimes.messages import (
    FIRST_ID,
    ID,
    ID_COMES,
    Caps,
    Connection,
    EndOfStream,
    RawFrame,
    pack_round_id,
    unpack_header,
)
from runtimes.protocol import MAX_OUTPUTS, Prediction
from runtimes.reporting import Tally
from runtimes.signature import Batch

TOGETHER_BYTES = 48 << 10  # of requests that are sent before an answer is read: what a socket takes without a reader
NO_ID = bytes(ID.size)
HEADER_BYTES = 1 << 19
HEADER_CONTAINERS = 4 * MAX_OUTPUTS  # an output is two lists
MAX_HEADS = 64
PROBABILITIES = "probabilities"
TICK_SECONDS = 0.25
TICK = struct.pack("ll", 0, int(TICK_SECONDS * 1_000_000))  # struct timeval


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


class Head(NamedTuple):
    """The bytes round an id and a tensor's bytes, for every request with such a tensor."""

    start: bytes
    middle: bytes
    end: bytes


class ReplyPlan(NamedTuple):
    """Where in a reply's body the outputs and the probabilities lie."""

    outputs: list[arrays.Place]
    probabilities: list[arrays.Place]

    def take(self, body: memoryview) -> Prediction:
        """The prediction that a body holds."""
        table = arrays.take(self.probabilities, body) if self.probabilities else {}
        return Prediction(arrays.take(self.outputs, body), table.get(PROBABILITIES))


class Known(NamedTuple):
    """What a reply's header said, for replies to such questions that differ from it by their id alone."""

    start: bytes
    body_bytes: int
    question: tuple[int, bool]
    plan: ReplyPlan


def caps_of(limits: Limits) -> Caps:
    """What a reply may hold; its header is read with the interpreter's lock held, so that it must cost little."""
    return Caps(HEADER_BYTES, limits.reply_bytes, list_items=MAX_OUTPUTS, containers=HEADER_CONTAINERS)


class RunnerConnection:
    """One thread's connection to one runner, which takes no request that names another.

    on_silence: told how long a question has waited once that is longer than a call may take.
    """

    def __init__(
        self, key: str, way: Way, timeout_s: float, tally: Tally, on_silence: Callable[[Way, float], None]
    ) -> None:
        self._key, self._way, self._tally, self._on_silence = key, way, tally, on_silence
        try:
            self._sock = addresses.connect(addresses.path_of(way.path), timeout_s)
        except OSError as error:
            raise EndOfStream from error
        self._caps = caps_of(way.limits)
        self._connection = Connection(self._sock.fileno(), self._caps)
        self._block_by_ticks()
        self._ids = itertools.count(FIRST_ID)
        self._heads: dict[Hashable, Head] = {}
        self._known: Known | None = None

    def call(self, batch: Batch, rows: int, *, probabilities: bool, deadline: float) -> Prediction:
        """One request and its checked answer."""
        self._tally.begin()
        try:
            request_id = self._send(self._encode(batch, probabilities=probabilities), deadline)
            return self._receive(request_id, rows, deadline, probabilities=probabilities)
        finally:
            self._tally.end(1)

    def call_together(self, questions: Sequence[Question], deadline: float) -> list[Prediction | ModelError]:
        """Each one's checked answer, or what the model raised on it. What fits into the socket is sent before the first
        answer is read, so that the runner can predict it as one batch."""
        self._tally.begin()
        try:
            return self._call_together(questions, deadline)
        finally:
            self._tally.end(len(questions))

    @property
    def waited_seconds(self) -> float:
        """How long the last question has waited, or did."""
        return self._tally.last_seconds

    def close(self) -> None:
        """Close the connection."""
        self._tally.is_open = False
        self._sock.close()

    def __del__(self) -> None:
        self._tally.is_open = False  # its thread has ended

    def _call_together(self, questions: Sequence[Question], deadline: float) -> list[Prediction | ModelError]:
        answers: list[Prediction | ModelError] = []
        waiting: list[tuple[int, Question]] = []
        sent_bytes = 0
        for question in questions:
            parts = self._encode(question.batch, probabilities=question.probabilities)
            size = sum(map(len, parts))
            if waiting and sent_bytes + size > TOGETHER_BYTES:
                answers += self._receive_all(waiting, deadline)
                waiting, sent_bytes = [], 0
            waiting.append((self._send(parts, deadline), question))
            sent_bytes += size
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

    def _block_by_ticks(self) -> None:
        """Let a read or a write wait in the kernel for a tick: an answer within it costs one system call, not three."""
        self._sock.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._sock.setsockopt(socket.SOL_SOCKET, option, TICK)

    def _send(self, parts: list[bytes | memoryview], deadline: float) -> int:
        """Send a request with an id of its own, which is the answer."""
        request_id = next(self._ids)
        parts[1] = ID.pack(request_id)
        self._connection.write(parts, deadline)
        return request_id

    def _encode(self, batch: Batch, *, probabilities: bool) -> list[bytes | memoryview]:
        """The bytes of a request, with a place for its id."""
        kind = None if isinstance(batch, dict) else (batch.dtype, batch.shape, probabilities)
        head = self._heads.get(kind)
        if head is not None and not isinstance(batch, dict):  # only its id and its bytes are new
            return [head.start, NO_ID, head.middle, arrays.bytes_of(batch), head.end]
        fields, buffers = arrays.encode_batch(batch)
        asked = {"key": self._key, "generation": self._way.generation, PROBABILITIES: probabilities}
        start, middle = pack_round_id({**fields, **asked}, sum(buffer.nbytes for buffer in buffers))
        if not isinstance(batch, dict) and arrays.is_numeric(batch):
            self._keep(kind, Head(start, middle, bytes(buffers[-1])))
        return [start, NO_ID, middle, *buffers]

    def _keep(self, kind: Hashable, head: Head) -> None:
        if len(self._heads) >= MAX_HEADS:
            self._heads.clear()
        self._heads[kind] = head

    def _receive(self, request_id: int, rows: int, deadline: float, *, probabilities: bool) -> Prediction:
        frame = self._next(deadline)
        known, question = self._known, (rows, probabilities)
        if known is not None and known[:3] == (frame.header[: -ID.size], frame.body.nbytes, question):
            if frame.header[-ID.size :] != ID.pack(request_id):
                raise ProtocolFault("A runner answered another question.")
            return known.plan.take(frame.body)
        header = unpack_header(frame.header, self._caps)
        if header.get("id") != request_id:
            raise ProtocolFault("A runner answered another question.")
        if header.get("ok") is not True:
            raise _model_error(header)
        plan = plan_reply(header, frame.body.nbytes, rows, probabilities=probabilities)
        start = frame.header[: -ID.size]
        self._known = Known(start, frame.body.nbytes, question, plan) if start.endswith(ID_COMES) else None
        return plan.take(frame.body)

    def _next(self, deadline: float) -> RawFrame:
        """The next frame; a runner that is silent for longer than a call may take is reported, and then waited for."""
        started = self._tally.started_at
        patience = min(deadline, started + self._way.limits.call_seconds)
        try:
            return self._connection.receive_raw(patience, TICK_SECONDS)
        except DeadlineExceeded:
            if patience == deadline:
                raise
        self._on_silence(self._way, time.monotonic() - started)
        try:
            return self._connection.receive_raw(deadline, TICK_SECONDS)
        except EndOfStream:
            seconds = self._way.limits.call_seconds
            raise DeadlineExceeded(
                f"The model took longer than the {seconds:g} seconds that a call may take."
            ) from None


def plan_reply(header: Mapping[str, Any], body_bytes: int, rows: int, *, probabilities: bool) -> ReplyPlan:
    """How a reply's body is to be read, if all that its header says is what a prediction may be.

    Raises:
        ProtocolFault: a dtype, shape, row count or size is wrong.
    """
    outputs, used = arrays.places(header.get("outputs"), body_bytes, rows=rows)
    if not 0 < len(outputs) <= MAX_OUTPUTS:
        raise ProtocolFault("A runner answered no outputs, or too many.")
    if not probabilities:
        return ReplyPlan(outputs, [])
    tables, _ = arrays.places(header.get(PROBABILITIES), body_bytes, rows=rows, start=used)
    if [table.name for table in tables] != [PROBABILITIES] or not _is_table(tables[0]):
        raise ProtocolFault("A runner answered no table of probabilities.")
    return ReplyPlan(outputs, tables)


def _is_table(place: arrays.Place) -> bool:
    return len(place.shape) == 2 and place.dtype.startswith("float")


def _model_error(header: Mapping[str, Any]) -> RuntimeFault:
    fault = header.get("fault")
    told = from_message(fault) if isinstance(fault, Mapping) else ProtocolFault("A runner's error is unreadable.")
    return told if isinstance(told, ModelError) else ProtocolFault("A runner claimed an error that is not a model's.")
