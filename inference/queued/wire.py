"""What crosses the queue: the requests of one version in a message, their answers in a reply, arrays as their bytes.

Both hold the number of their protocol, so that a rolling deploy may mix two versions: a worker answers what it cannot
read with an error that says to try again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from common import errors
from common.errors import PlatformError, TimedOut, Unavailable
from runtimes import arrays
from runtimes.batching import rows_of
from runtimes.protocol import Prediction
from runtimes.signature import Batch

PROTOCOL = 1
MOST_ROWS = 1 << 31
TABLE = "table"  # of probabilities
NAMED = ("tenant", "version_id", "pool_key", "message_id", "reply_to", "sent_at", "sends")


class OtherProtocol(Unavailable):
    """The other end is of another release."""

    code = "other_release"


@dataclass(frozen=True)
class Request:
    """One request on its way: a batch that fits the signature. answer_before: on `time.time()`'s clock."""

    header: Mapping[str, Any]
    body: bytes
    rows: int
    probabilities: bool
    answer_before: float

    @classmethod
    def of(cls, batch: Batch, *, probabilities: bool, answer_before: float) -> "Request":
        """The request for a batch."""
        header, buffers = arrays.encode_batch(batch)
        return cls(header, b"".join(buffers), rows_of(batch), probabilities, answer_before)

    def batch(self) -> Batch:
        """The batch again, its arrays over this request's bytes."""
        return arrays.decode_batch(self.header, memoryview(self.body), max_rows=MOST_ROWS)


@dataclass(frozen=True)
class Message:
    """Requests for one version that leave together.

    tenant: its uuid. reply_to: the Valkey list that the answers go to. sends: how often it was sent, with this time.
    """

    tenant: str
    version_id: str
    pool_key: str
    message_id: str
    reply_to: str
    sent_at: float
    sends: int
    requests: Sequence[Request]

    def to_values(self) -> dict[str, Any]:
        """The keyword arguments of the task."""
        values = {name: getattr(self, name) for name in NAMED}
        asked = [[one.header, one.body, one.rows, one.probabilities, one.answer_before] for one in self.requests]
        return values | {"requests": asked, "protocol": PROTOCOL}

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> "Message":
        """The message that keyword arguments hold.

        Raises:
            OtherProtocol: they are another release's.
        """
        if values.get("protocol") != PROTOCOL:
            raise OtherProtocol("The workers run another release than this server; try again shortly.", retry_after_s=5)
        return cls(**{name: values[name] for name in NAMED}, requests=[Request(*one) for one in values["requests"]])


Answer = Prediction | PlatformError


def pack_reply(message_id: str, answers: Sequence[Answer], took_s: float) -> bytes:
    """A reply with the answers to a message's requests, in their order. took_s: what the prediction took the worker."""
    packed: bytes = msgpack.packb(
        {"protocol": PROTOCOL, "message_id": message_id, "took_s": took_s, "answers": [_packed(one) for one in answers]}
    )
    return packed


def pack_sign_of_life(message_id: str) -> bytes:
    """A reply that says that a worker has the message in hand."""
    packed: bytes = msgpack.packb({"protocol": PROTOCOL, "message_id": message_id, "answers": None})
    return packed


@dataclass(frozen=True)
class Reply:
    """answers: by request, still packed, or None where the message is only in hand."""

    message_id: str
    answers: Sequence[Any] | None
    took_s: float = 0.0

    @classmethod
    def unpack(cls, packed: bytes) -> "Reply":
        """The reply in these bytes.

        Raises:
            ValueError: they are none.
        """
        values = msgpack.unpackb(packed, raw=False)
        if not isinstance(values, dict) or values.get("protocol") != PROTOCOL:
            raise ValueError("no reply of this release")
        return cls(str(values["message_id"]), values["answers"], float(values.get("took_s", 0.0)))


def opened(packed: Any, request: Request) -> Prediction:
    """The prediction in one packed answer.

    Raises:
        PlatformError: the one that it holds instead.
    """
    if "outputs" not in packed:
        raise unseal(packed)
    body = memoryview(packed["body"])
    outputs, used = arrays.decode(packed["outputs"], body, rows=request.rows)
    table, _ = arrays.decode(packed["probabilities"], body[used:], rows=request.rows)
    return Prediction(outputs, table.get(TABLE))


def _packed(answer: Answer) -> dict[str, Any]:
    if isinstance(answer, PlatformError):
        return seal(answer)
    outputs, buffers = arrays.encode(answer.outputs)
    table, more = arrays.encode({} if answer.probabilities is None else {TABLE: answer.probabilities})
    return {"outputs": outputs, "probabilities": table, "body": b"".join(buffers + more)}


def seal(error: PlatformError) -> dict[str, Any]:
    """An error as plain values, so that it can cross the queue: of the kind that `common.errors` has for it."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return {
        "error_kind": kind.__name__,
        "code": error.code,
        "message": error.message,
        "fields": error.fields,
        "retry_after_s": error.retry_after_s,
    }


def unseal(values: Mapping[str, Any]) -> PlatformError:
    """The error that was sealed."""
    told = dict(values)
    kind: type[PlatformError] = getattr(errors, told.pop("error_kind"))
    return kind(told.pop("message"), **told)


def expired() -> TimedOut:
    """What becomes of a request whose deadline passed on the way."""
    return TimedOut("The deadline passed before a worker came to the request.")
