"""What can go wrong between a caller and a model, each kind a class of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MESSAGE_CHARS = 500
CODE_CHARS = 40


class RuntimeFault(Exception):
    """The parent of everything that this package raises on purpose."""

    code = "runtime_fault"
    is_retryable = False

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class ArtifactRejected(RuntimeFault):
    """The artifact cannot be served; `reason` is one sentence for the person who uploaded it."""

    code = "unreadable_artifact"

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason, code)
        self.reason = reason


class ModelError(RuntimeFault):
    """The model raised while it predicted or fitted; its runner is still usable."""

    code = "model_error"


class RunnerDied(RuntimeFault):
    """The runner ended in mid-call; asking again starts another."""

    code = "runner_died"
    is_retryable = True


class DeadlineExceeded(RuntimeFault):
    """No answer came in the time the caller gave."""

    code = "deadline_exceeded"


class ProtocolFault(RuntimeFault):
    """The other side sent what the protocol does not allow; nothing of it was used."""

    code = "protocol_fault"


class HostUnavailable(RuntimeFault):
    """The model host does not answer; the supervisor restarts it, so ask again soon."""

    code = "host_unavailable"
    is_retryable = True


class ConfinementUnavailable(RuntimeFault):
    """This machine cannot confine a runner, so no artifact is loaded on it."""

    code = "confinement_unavailable"


class PoolFull(RuntimeFault):
    """No room for another runner: everything resident is pinned, or the tenant has its share."""

    code = "pool_full"
    is_retryable = True


class Cancelled(RuntimeFault):
    """The caller asked for the work to stop, and it has stopped."""

    code = "cancelled"


class InvalidSignature(RuntimeFault):
    """A declared signature does not describe inputs and outputs."""

    code = "invalid_signature"


KINDS: Mapping[str, type[RuntimeFault]] = {
    kind.__name__: kind
    for kind in (
        ArtifactRejected,
        ModelError,
        RunnerDied,
        DeadlineExceeded,
        ProtocolFault,
        HostUnavailable,
        ConfinementUnavailable,
        PoolFull,
        Cancelled,
        InvalidSignature,
    )
}


def plain(text: object, limit: int = MESSAGE_CHARS) -> str:
    """The text on one line, printable and bounded: it may come from a hostile artifact."""
    words = " ".join(str(text)[: limit * 4].split())
    clean = "".join(character if character.isprintable() else "?" for character in words)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def describe(error: BaseException, limit: int = MESSAGE_CHARS) -> str:
    """The exception's class and text; the class may be an artifact's own, and its text may raise or never end."""
    try:
        told = f"{type(error).__name__}: {error}"
    except BaseException:
        told = type(error).__name__
    place = place_in_code(error)
    return f"{plain(told, limit - len(place) - 4)}, at {place}" if place else plain(told, limit)


def lacks_memory(error: BaseException) -> bool:
    """Whether memory is what was missing; torch says so by a RuntimeError."""
    return isinstance(error, MemoryError) or "can't allocate memory" in describe(error)


def place_in_code(error: BaseException) -> str:
    """Where in the code that travels with an artifact it was raised, as `code/lib.py:12`; empty if nowhere there."""
    own = vars(BaseException)["__traceback__"]  # a class of an artifact's may have another one
    place, trace = "", own.__get__(error)
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.endswith(".py") and not name.startswith(("/", "<")):  # of its code alone the name is relative
            place = f"{plain(name, 80)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def to_message(fault: RuntimeFault) -> dict[str, str]:
    """The fault as a map of strings, for a frame."""
    kind = next(parent.__name__ for parent in type(fault).__mro__ if KINDS.get(parent.__name__, RuntimeFault) is parent)
    return {"kind": kind, "code": fault.code, "message": plain(fault.message)}


def from_message(message: Mapping[str, Any]) -> RuntimeFault:
    """The fault that a frame's map describes; an unknown kind becomes a ProtocolFault."""
    code, text = plain(message.get("code", ""), CODE_CHARS), plain(message.get("message", ""))
    kind = KINDS.get(str(message.get("kind")), ProtocolFault)
    if kind is ArtifactRejected:
        return ArtifactRejected(code, text)
    return kind(text, code or None)
