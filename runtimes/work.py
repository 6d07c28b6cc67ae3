"""One-shot work seen from the client, such as an inspection, in a runner that ends with it."""

from __future__ import annotations

import math
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, get_args

from runtimes.errors import (
    ArtifactRejected,
    Cancelled,
    DeadlineExceeded,
    InvalidSignature,
    ModelError,
    ProtocolFault,
    RuntimeFault,
    from_message,
    plain,
)
from runtimes.libraries import BUILT_IN, GUIDE, advice, suiting
from runtimes.limits import Limits
from runtimes.messages import Caps, Connection, EndOfStream, Frame
from runtimes.protocol import Task
from runtimes.signature import Signature

CHUNK_CAPS = Caps(header_bytes=4 << 20, body_bytes=4 << 20)
TICK_SECONDS = 0.2
ENDING_SECONDS = 30.0
MAX_TEXTS = 100
MAX_FRAMES = 10_000  # of stages and progress; an artifact's frames are counted by its size
MEAN_FRAME_BYTES = 4096
MAX_WARNINGS = 20
DECLARED = ("signature", "input_example", "labels", "architecture", "detection")
NOT_FOR_ITS_LIBRARIES = ("confinement_violation", "load_memory", "load_timeout")
BETTER_SET = 'The library set "{}" has the version that made this file; name it as "library_set" to be sure.'
SCAN_SECONDS, SCAN_CPU_SECONDS = 15.0, 20  # the time to load, of which an inspection has twice as much
MAX_FINDINGS = 60
UNKNOWN_SET = "unknown_library_set"
TASKS: tuple[Task, ...] = get_args(Task)


class Conversation(Protocol):
    """A connection to the host, as `runtimes.client` makes it."""

    def __enter__(self) -> Conversation: ...
    def __exit__(self, *exc_info: object) -> None: ...
    def tell(self, request: Mapping[str, Any], fds: Sequence[int] = ()) -> None: ...
    def finish(self) -> None: ...
    def answer(self, timeout_s: float) -> dict[str, Any]: ...
    def fileno(self) -> int: ...


class Client(Protocol):
    """Whoever can talk to the host."""

    def converse(self) -> Conversation: ...


@dataclass(frozen=True)
class Inspection:
    """What an artifact is and needs.

    libraries: the versions in the runner that inspected it. made_with: the versions that the artifact names.
    memory_bytes: private memory of the runner at its peak. warnings: sentences worth showing to the uploader.
    scan: a scanner's advice, as `{"scanner": "picklescan 1.0.5", "findings": […]}`; it decides nothing.
    """

    format: str
    task: Task
    signature: Signature
    libraries: dict[str, str]
    made_with: dict[str, str]
    type_name: str
    warnings: tuple[str, ...]
    memory_bytes: int
    load_seconds: float
    scan: dict[str, Any] = field(default_factory=dict)


def inspect(
    client: Client,
    bundle_fd: int,
    tenant: str,
    metadata: Mapping[str, Any],
    limits: Limits,
    on_stage: Callable[[str], None],
) -> Inspection:
    """Inspect with the declared or the default libraries, and once more with those that the format needs."""
    library_set = str(metadata.get("library_set") or BUILT_IN[0])
    result, usage = _inspect_with(library_set, client, bundle_fd, metadata, limits, on_stage)
    needs = result.get("needs")
    if needs is not None:
        with _own_set_declared(str(needs)):
            result, usage = _inspect_with(str(needs), client, bundle_fd, metadata, limits, on_stage)
    return replace(_inspection(result, usage), scan=_scan(client, bundle_fd, limits))


@contextmanager
def _own_set_declared(library_set: str) -> Iterator[None]:
    """Tell an uploader whose format has a library set of its own what is missing, where nobody declared that set."""
    try:
        yield
    except ArtifactRejected as rejection:
        if rejection.code != UNKNOWN_SET:
            raise
        name = plain(library_set, 60)
        reason = f"It is a {name} model, for which an operator has to declare a library set named '{name}' ({GUIDE})."
        raise ArtifactRejected("library_set_needed", reason) from rejection


def _scan(client: Client, bundle_fd: int, limits: Limits) -> dict[str, Any]:
    """A scanner's report, or why there is none: it has a runner of its own, and what becomes of it is no verdict."""
    bounded = replace(limits, load_seconds=min(limits.load_seconds, SCAN_SECONDS), cpu_seconds=SCAN_CPU_SECONDS)
    request = {"op": "scan", "library_set": BUILT_IN[0], "options": {}, "limits": bounded.to_json()}
    try:
        with Work(client, request, bundle_fd, lambda: False) as work, checked():
            for _ in work.frames():
                pass
            findings = [plain(text, 300) for text in list(work.result["findings"])[:MAX_FINDINGS]]
            return {"scanner": plain(work.result["scanner"], 80), "findings": findings}
    except RuntimeFault as fault:
        return {"scanner": "none", "findings": [f"The scan gave no report: {plain(fault.message, 200)}"]}


def _inspect_with(
    library_set: str,
    client: Client,
    bundle_fd: int,
    metadata: Mapping[str, Any],
    limits: Limits,
    on_stage: Callable[[str], None],
) -> tuple[dict[str, Any], dict[str, Any]]:
    options = {name: metadata[name] for name in DECLARED if name in metadata}
    request = {"op": "inspect", "library_set": library_set, "options": options, "limits": limits.to_json()}
    with Work(client, request, bundle_fd, lambda: False) as work:
        made_with: dict[str, str] = {}
        try:
            for frame in work.frames():
                on_stage(plain(frame.header.get("stage", ""), 80))
                made_with = texts_of(frame.header.get("made_with") or made_with)
            found = texts_of(work.result.get("made_with") or {}) | made_with
            return work.result | {"made_with": found}, work.usage()
        except ArtifactRejected as rejection:
            if not made_with or rejection.code in NOT_FOR_ITS_LIBRARIES:
                raise
            raise _with_advice(rejection, made_with, work.account()) from rejection


class Work:
    """One job in a one-shot runner: its frames, then its result, then what it used."""

    def __init__(self, client: Client, request: Mapping[str, Any], fd: int, is_cancelled: Callable[[], bool]) -> None:
        self._client, self._request, self._fd, self._is_cancelled = client, request, fd, is_cancelled
        self._frames_left = MAX_FRAMES + request["limits"]["artifact_bytes"] // MEAN_FRAME_BYTES
        self._account: dict[str, Any] = {}
        self.result: dict[str, Any] = {}

    def __enter__(self) -> Work:
        with ExitStack() as opened:
            self._host = opened.enter_context(self._client.converse())
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            self._channel = Connection(ours.detach(), CHUNK_CAPS)
            opened.callback(self._channel.close)
            with theirs:
                self._host.tell(self._request, [self._fd, theirs.fileno()])
            opened.pop_all()  # from here on they are closed when the work ends
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._channel.close()
        self._host.__exit__(*exc_info)  # the host ends a runner whose client is gone

    def frames(self) -> Iterator[Frame]:
        """The frames until the result; raises the runner's fault, or the host's reason when the runner has none."""
        while True:
            try:
                frame = self._next()
            except EndOfStream:
                self.usage()
                raise ProtocolFault("A runner ended without a result.") from None
            if "result" in frame.header:
                self.result = map_of(frame.header["result"])
                return
            if "fault" in frame.header:
                raise _believed(from_message(map_of(frame.header["fault"])))
            self._frames_left -= 1
            if self._frames_left < 0:
                raise ProtocolFault("A runner sent more messages than any work has.")
            yield frame

    def answer(self, header: Mapping[str, Any], buffers: Sequence[memoryview] = ()) -> None:
        """Send the runner what it asked for in its last frame.

        Raises:
            ProtocolFault: it does not read.
        """
        try:
            self._channel.send(header, buffers, time.monotonic() + ENDING_SECONDS)
        except (EndOfStream, DeadlineExceeded) as error:
            self.usage()
            raise ProtocolFault("A runner did not take what it had asked for.") from error

    def usage(self) -> dict[str, Any]:
        """End the runner; what it used. Raises the host's reason when it had to end the runner before."""
        usage = self.account()
        if usage.get("fault"):
            raise from_message(usage["fault"])
        return usage

    def account(self) -> dict[str, Any]:
        """End the runner; the host's whole account of it."""
        if not self._account:
            self._host.finish()
            self._account = self._host.answer(ENDING_SECONDS)
        return self._account

    def _next(self) -> Frame:
        while True:
            if self._is_cancelled():
                self._cancel()
            try:
                return self._channel.receive(time.monotonic() + TICK_SECONDS)
            except DeadlineExceeded:
                if _is_readable(self._host.fileno()):  # the host has ended it; what it sent before still counts
                    raise EndOfStream from None

    def _cancel(self) -> None:
        self._host.finish()
        self._host.answer(ENDING_SECONDS)
        raise Cancelled("The work was cancelled.")


def _with_advice(
    rejection: ArtifactRejected, made_with: Mapping[str, str], account: Mapping[str, Any]
) -> ArtifactRejected:
    """The rejection, saying which library set would do where another version of a library made the artifact."""
    sentence = advice(made_with, account["libraries"], account["library_sets"])
    return ArtifactRejected(rejection.code, f"{sentence} {plain(rejection.reason, 250)}") if sentence else rejection


def _is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def _believed(fault: RuntimeFault) -> RuntimeFault:
    """A runner may reject its artifact or report its model's error; any other claim is not its to make."""
    if isinstance(fault, ArtifactRejected | ModelError):
        return fault
    return ModelError(fault.message, fault.code if isinstance(fault, InvalidSignature) else None)


def map_of(value: object) -> dict[str, Any]:
    """A map out of a runner."""
    if not isinstance(value, dict):
        raise ProtocolFault("A runner's result is not a map.")
    return value


def texts_of(value: object) -> dict[str, str]:
    """A map of short texts out of a runner."""
    return {plain(name, 80): plain(text, 80) for name, text in list(map_of(value).items())[:MAX_TEXTS]}


def task_of(value: object) -> Task:
    """A task that there is."""
    for task in TASKS:
        if value == task:
            return task
    raise ProtocolFault("A runner named an unknown task.")


@contextmanager
def checked() -> Iterator[None]:
    """Whatever is missing or of the wrong kind in a runner's result is a fault of the protocol."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, InvalidSignature) as error:
        raise ProtocolFault("A runner's result is not what it must be.") from error


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ProtocolFault("A runner told a time that is none.")
    return float(value)


def _inspection(result: Mapping[str, Any], usage: Mapping[str, Any]) -> Inspection:
    with checked():
        notes = [plain(text) for text in list(result["warnings"])[:MAX_WARNINGS]]
        made_with = texts_of(result["made_with"])
        if (better := suiting(made_with, usage["libraries"], usage["library_sets"])) is not None:
            notes.append(BETTER_SET.format(better))
        return Inspection(
            format=plain(result["format"], 40),
            task=task_of(result["task"]),
            signature=Signature.from_json(result["signature"]),
            libraries=dict(usage["libraries"]),
            made_with=made_with,
            type_name=plain(result["type_name"], 80),
            warnings=tuple(notes),
            memory_bytes=int(usage["peak_bytes"]),
            load_seconds=_seconds(result["load_seconds"]),
        )
