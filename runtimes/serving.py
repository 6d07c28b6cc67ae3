"""A runner's loop: accepts clients, drains every request that waits, predicts, answers each on its own connection."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from runtimes import arrays, batching
from runtimes.errors import DeadlineExceeded, ModelError, ProtocolFault, describe, plain, to_message
from runtimes.limits import Limits
from runtimes.messages import ID, ID_COMES, Caps, Connection, EndOfStream, RawFrame, pack_head, unpack_header
from runtimes.protocol import MAX_OUTPUTS, Prediction, Predictor
from runtimes.replies import PROBABILITIES, Replies
from runtimes.signature import Batch

MAX_CLIENTS = 96  # below the limit of open files
REQUEST_BYTES = 256 << 20
CAPS = Caps(header_bytes=4 << 20, body_bytes=REQUEST_BYTES)
ANSWER_SECONDS = 5.0  # a client that does not read its answer for so long loses its connection


@dataclass(frozen=True)
class Identity:
    """Which runner this is: every request says whom it is for, and another's is refused before it is read."""

    key: str
    generation: int

    def is_meant_by(self, header: Mapping[str, Any]) -> bool:
        """Whether a request is for this runner."""
        return (header.get("key"), header.get("generation")) == (self.key, self.generation)


class Request(NamedTuple):
    """One batch that waits for its prediction."""

    client: Client
    id: int
    batch: Batch
    known: Known


@dataclass(frozen=True, slots=True)
class Known:
    """What a header said, for requests that differ from its own by their id alone; its last bytes are the id.

    kind: what requests must have in common to be predicted together.
    """

    start: bytes
    body_bytes: int
    plan: arrays.BatchPlan
    probabilities: bool
    rows: int
    kind: Hashable

    def covers(self, frame: RawFrame) -> bool:
        """Whether this says of the frame what its header would."""
        return frame.header[: -ID.size] == self.start and frame.body.nbytes == self.body_bytes


class Client:
    """One connection of a client thread."""

    def __init__(self, fd: int) -> None:
        self.connection = Connection(fd, CAPS)
        self.reader = self.connection.reader
        self.is_open = True
        self.known: Known | None = None

    def waiting_frames(self) -> list[RawFrame]:
        """Every whole frame that has arrived."""
        try:
            self.reader.read_some()
        except BlockingIOError:
            return []
        frames = []
        while (frame := self.reader.take_raw()) is not None:
            frames.append(frame)
        return frames

    def answer(self, parts: list[bytes | memoryview]) -> None:
        """Send one reply; a client that is gone or does not read loses its connection."""
        try:
            self.connection.write(parts, time.monotonic() + ANSWER_SECONDS)
        except (EndOfStream, DeadlineExceeded, OSError):
            self.is_open = False


class Server:
    """The clients of one loaded model, and the loop that serves them."""

    def __init__(
        self, predictor: Predictor, listener_fd: int, control: Connection, limits: Limits, identity: Identity
    ) -> None:
        self._predictor, self._control, self._limits, self._identity = predictor, control, limits, identity
        # every argument given: asking the kernel for family and type is forbidden
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=listener_fd)
        self._listener.setblocking(False)
        self._clients: dict[int, Client] = {}
        self._replies = Replies()
        self._poll = select.poll()
        self._poll.register(listener_fd, select.POLLIN)
        self._poll.register(control.fd, select.POLLIN)

    def run(self) -> None:
        """Serve clients until the host closes its end of the control stream."""
        while True:
            ready = self._ready(None)
            if not ready <= self._clients.keys():
                self._greet(ready)
                ready = self._ready(0)  # newcomers have asked by now, and their requests are predicted with the others
            asking = [self._clients[fd] for fd in ready & self._clients.keys()]
            for group in self._groups([request for client in asking for request in self._read(client)]):
                self._predict(group)
            for client in asking:
                if not client.is_open:
                    self._drop(client.connection.fd)

    def _ready(self, timeout_ms: int | None) -> set[int]:
        return {fd for fd, _ in self._poll.poll(timeout_ms)}

    def _greet(self, ready: set[int]) -> None:
        """Answer the host and accept every client that waits; no request is being worked on meanwhile."""
        if self._control.fd in ready:
            self._answer_host()
        if self._listener.fileno() in ready:
            for _ in range(MAX_CLIENTS):
                if not self._accept(ready):
                    break

    def _answer_host(self) -> None:
        ping = self._control.receive(time.monotonic() + ANSWER_SECONDS).header
        self._control.send({"alive": ping["nonce"]})

    def _accept(self, busy: set[int]) -> bool:
        """Whether a client waited; when there are many, the oldest one that asks nothing now loses its connection."""
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return False
        fd = connection.detach()
        if len(self._clients) >= MAX_CLIENTS:  # its thread connects again when it has work
            self._drop(next((known for known in self._clients if known not in busy), next(iter(self._clients))))
        self._clients[fd] = Client(fd)
        self._poll.register(fd, select.POLLIN)
        return True

    def _drop(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._clients.pop(fd)
        os.close(fd)

    def _read(self, client: Client) -> list[Request]:
        try:
            frames = client.waiting_frames()
            return [self._request(client, frame) for frame in frames]
        except (EndOfStream, ProtocolFault, OSError):
            client.is_open = False
            return []

    def _request(self, client: Client, frame: RawFrame) -> Request:
        known = client.known
        if known is not None and known.covers(frame):
            (request_id,) = ID.unpack(frame.header[-ID.size :])
        else:
            request_id, known = self._understand(client, frame)
        return Request(client, request_id, arrays.take_batch(known.plan, frame.body), known)

    def _understand(self, client: Client, frame: RawFrame) -> tuple[int, Known]:
        """A request's id and the rest of what its header says, which is kept for requests like it."""
        header = unpack_header(frame.header, CAPS)
        if not self._identity.is_meant_by(header):  # the client loses its connection, and asks the host again
            raise ProtocolFault("A request is for another runner.")
        request_id = header.get("id")
        if not isinstance(request_id, int):
            raise ProtocolFault("A request has no id.")
        plan = arrays.plan_batch(header, frame.body.nbytes, max_rows=self._limits.rows)
        probabilities = header.get(PROBABILITIES) is True
        kind = probabilities, plan.kind
        known = Known(frame.header[: -ID.size], frame.body.nbytes, plan, probabilities, plan.rows, kind)
        client.known = known if known.start.endswith(ID_COMES) else None
        return request_id, known

    def _groups(self, requests: list[Request]) -> list[list[Request]]:
        """The requests in lots that can be predicted together, each within the bound on rows."""
        if len(requests) < 2 or not self._predictor.is_batchable:
            return [[request] for request in requests]
        groups: list[list[Request]] = []
        open_groups: dict[Hashable, tuple[list[Request], int]] = {}
        for request in requests:
            known = request.known
            group, rows = open_groups.get(known.kind, ([], self._limits.rows))
            rows += known.rows
            if rows > self._limits.rows:
                group, rows = [], known.rows
                groups.append(group)
            group.append(request)
            open_groups[known.kind] = group, rows
        return groups

    def _predict(self, group: list[Request]) -> None:
        """Answer several requests from one prediction, or each alone when that fails: one bad one harms no other."""
        parts = self._together(group) if len(group) > 1 else None
        for place, request in enumerate(group):
            self._answer(request, None if parts is None else parts[place])

    def _together(self, group: list[Request]) -> list[Prediction] | None:
        batch = batching.join([request.batch for request in group])
        try:
            whole = self._predictor.predict(batch, probabilities=group[0].known.probabilities)
            return batching.split(whole, [request.known.rows for request in group])
        except (Exception, SystemExit):  # predicting each alone tells the one at fault
            return None

    def _answer(self, request: Request, prediction: Prediction | None) -> None:
        """Answer with a prediction, or with the one that is made now."""
        try:
            if prediction is None:
                prediction = self._predictor.predict(request.batch, probabilities=request.known.probabilities)
            check_answer(prediction, request.known.rows)
            parts = self._replies.pack(request.id, prediction)
        except (Exception, SystemExit) as error:  # the model's own: this request fails, the runner goes on
            fault = error if isinstance(error, ModelError) else ModelError(describe(error))
            parts = [pack_head({"ok": False, "fault": to_message(fault), "id": request.id}, 0)]
        request.client.answer(parts)


def check_answer(prediction: Prediction, rows: int) -> None:
    """Go on only with what a client would take: a model that answers otherwise is wrong, and no liar.

    Raises:
        ModelError: with a sentence that says what is wrong.
    """
    if len(prediction.outputs) > MAX_OUTPUTS:
        raise ModelError(f"It gave {len(prediction.outputs)} outputs, and at most {MAX_OUTPUTS} are taken.")
    for name, values in prediction.outputs.items():
        if values.shape[:1] != (rows,):
            found = len(values) if values.ndim else "no"
            raise ModelError(f"It gave {found} values of '{plain(name, 80)}' for {rows} rows.")


def serve(predictor: Predictor, listener_fd: int, control: Connection, limits: Limits, identity: Identity) -> None:
    """Answer clients until the host closes the control stream."""
    Server(predictor, listener_fd, control, limits, identity).run()
