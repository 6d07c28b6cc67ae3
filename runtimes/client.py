"""The client of the model host: what web and Celery processes use to reach models.

Imports numpy and msgpack only, never a model's library. Everything that a runner answers is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from runtimes import addresses, page_work
from runtimes.asking import Question
from runtimes.compilation.requesting import Compilation, compile_artifact
from runtimes.conversation import CONNECT_SECONDS, HostConversation
from runtimes.detection import Box, Detection
from runtimes.directory import Directory, LoadRequest, Runner, not_again
from runtimes.fits import FitReport, Progress, Validation, fit
from runtimes.limits import Limits
from runtimes.page_work import DOCUMENT_LIMITS, DRAWING_LIMITS, Document
from runtimes.profiles import Profile
from runtimes.protocol import Prediction
from runtimes.readiness import Attendance
from runtimes.signature import Batch, Signature
from runtimes.table_work import Score, profile, score
from runtimes.work import Inspection, inspect

__all__ = ["FitReport", "HostClient", "Inspection", "LoadRequest", "Prediction", "Progress", "Question", "Runner"]


@dataclass(frozen=True)
class HostStats:
    """The pool's runners and counters (`runtimes.residents.Counters`).

    epoch: differs at each start of the host. is_ready: a client has loaded what is pinned since.
    zygotes: the process of each library set that is warm. library_sets: the versions in each set of the machine.
    """

    runners: tuple[Mapping[str, Any], ...]
    bytes: int
    memory_bytes: int
    hits: int
    misses: int
    loads: int
    copies: int
    failed_loads: int
    evictions: int
    retired: int
    deaths: int
    kills: int
    load_seconds: float
    loaded_bytes: int
    evicted_bytes: int
    epoch: str
    is_ready: bool
    zygotes: Mapping[str, int]
    library_sets: Mapping[str, Mapping[str, str]]


class HostClient:
    """The model host of this machine, for every thread of this process; a fork of the process may go on using it."""

    def __init__(self, address: str) -> None:
        self._path = addresses.path_of(address)
        self._directory = Directory(self._path)

    def runner(self, key: str, loader: Callable[[], LoadRequest], deadline_s: float | None = None) -> Runner:
        """The runner of a version, resident or loaded now.

        loader: called only when the version is not resident and nobody else is loading it. Blocks while it loads.
        deadline_s: how long the caller can wait. The loader runs in the caller's thread and is not interrupted: the
            time is looked at before and after it. What it gave is loaded even when nobody waits for it any more.

        Raises:
            ArtifactRejected, PoolFull, ConfinementUnavailable, HostUnavailable, and whatever the loader raises.
            DeadlineExceeded: the version was not there in time.
        """
        return self._directory.runner(key, loader, deadline_s)

    def inspect(
        self,
        bundle_fd: int,
        *,
        tenant: str,
        metadata: Mapping[str, Any],
        limits: Limits | None = None,
        on_stage: Callable[[str], None] | None = None,
    ) -> Inspection:
        """What an artifact is, learned by loading it in a confined runner of its own.

        Raises:
            ArtifactRejected: it cannot be served; `reason` says why in a sentence.
        """
        return inspect(self, bundle_fd, tenant, metadata, limits or Limits(), on_stage or (lambda stage: None))

    def compile(
        self,
        bundle_fd: int,
        *,
        format_name: str,
        options: Mapping[str, Any],
        out: BinaryIO,
        limits: Limits | None = None,
        on_stage: Callable[[str], None] | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> Compilation:
        """Compile an inspected artifact to ONNX in a confined runner of its own; the graph is written to `out`.

        options: as in a LoadRequest, and `input_example` where one was declared.

        Raises:
            Cancelled: `is_cancelled` said so; the runner is gone.
        """
        order = {"format": format_name, "options": dict(options)}
        ignore, never = (lambda stage: None), (lambda: False)
        return compile_artifact(
            self, bundle_fd, order, out, limits or Limits(), on_stage or ignore, is_cancelled or never
        )

    def fit(
        self,
        *,
        tenant: str,
        trainer: str,
        params: Mapping[str, Any],
        target: str,
        validation: Validation,
        dataset_fd: int,
        out: BinaryIO,
        format_name: str = "csv",
        library_set: str = "sklearn",
        watch: str = "",
        limits: Limits | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> FitReport:
        """Train on a table in a confined runner of a library set; the artifact is written to `out`.

        watch: a metric that is to be told while the fit goes on.

        Raises:
            Cancelled: `is_cancelled` said so; the runner is gone. ModelError: the data or the parameters do not do.
            DeadlineExceeded, ArtifactRejected: over a limit.
        """
        order = {
            "trainer": trainer,
            "params": params,
            "target": target,
            "validation": validation,
            "format": format_name,
            "library_set": library_set,
            "watch": watch,
        }
        report = on_progress or (lambda progress: None)
        return fit(self, order, dataset_fd, out, limits or Limits(), report, is_cancelled or (lambda: False))

    def fit_custom(
        self,
        *,
        params: Mapping[str, Any],
        target: str,
        validation: Validation,
        bundle_fd: int,
        out: BinaryIO,
        format_name: str,
        library_set: str,
        limits: Limits,
        on_progress: Callable[[Progress], None],
        is_cancelled: Callable[[], bool],
    ) -> FitReport:
        """Train with a tenant's own program in a confined runner; the artifact is written to `out`.

        bundle_fd: a packed bundle of `data` and the files of the program, `code/train.py` among them.

        Raises:
            As `fit` does.
        """
        asked = {"params": params, "target": target, "validation": validation, "format": format_name}
        order = {"op": "fit_custom", "trainer": "custom", "library_set": library_set, **asked}
        return fit(self, order, bundle_fd, out, limits, on_progress, is_cancelled)

    def profile(self, *, dataset_fd: int, format_name: str, limits: Limits | None = None) -> Profile:
        """What a confined runner found in a table.

        Raises:
            ModelError: the file is no table; the sentence says where.
        """
        return profile(self, format_name, dataset_fd, limits or Limits())

    def score(
        self,
        *,
        dataset_fd: int,
        format_name: str,
        target: str,
        task: str,
        signature: Signature,
        predict: Callable[[Batch], Prediction],
        limits: Limits,
        on_progress: Callable[[Progress], None],
        is_cancelled: Callable[[], bool],
    ) -> Score:
        """What a model's predictions for a table's rows are worth; the model never meets the truth.

        Raises:
            Cancelled, DeadlineExceeded. ModelError: the table lacks what the signature names. And what `predict` does.
        """
        asked = {"format": format_name, "target": target, "task": task, "signature": signature.to_json()}
        return score(self, asked, dataset_fd, predict, limits, on_progress, is_cancelled)

    def open_document(self, *, document_fd: int, media_type: str, limits: Limits | None = None) -> Document:
        """A document whose pages a confined runner of its own renders, for a `with` block that ends the runner.

        media_type: of its content, as `media_type_of` tells it. limits: call_seconds is for each page.
        Entering the block raises ModelError where it cannot be read: encrypted_document, unreadable_document,
        empty_document, too_many_pages.
        """
        return Document(self, document_fd, media_type, limits or DOCUMENT_LIMITS)

    def draw(self, png: bytes, boxes: Sequence[Detection], limits: Limits | None = None) -> bytes:
        """The image with boxes, labels and scores drawn on it in a confined runner, as PNG."""
        return page_work.draw(self, png, boxes, limits or DRAWING_LIMITS)

    def crop(self, png: bytes, box: Box, limits: Limits | None = None) -> bytes:
        """What of the image is in a box, in its pixels, cut out in a confined runner, as PNG."""
        return page_work.crop(self, png, box, limits or DRAWING_LIMITS)

    def resident(self, key: str) -> bool:
        """Whether the version is loaded now."""
        return bool(self.ask({"op": "find", "key": key})["resident"])

    def touch(self, key: str) -> bool:
        """Whether the version is loaded now; it counts as just used, so others make room before it does."""
        return bool(self.ask({"op": "touch", "key": key})["resident"])

    def loaded_runner(self, key: str) -> Runner | None:
        """The runner of a version that is loaded now; one that is gone when it is asked is not loaded again.

        Its `predict` raises RunnerDied then.
        """
        return Runner(self._directory, key, not_again) if self.resident(key) else None

    def evict(self, key: str) -> bool:
        """Whether the version was loaded; its runner is gone now, and a remembered failure is forgotten."""
        self._directory.ways.pop(key, None)
        return bool(self.ask({"op": "evict", "key": key})["evicted"])

    def drain(self, key: str) -> bool:
        """Whether the version was loaded; its runners answer what is in flight, take nothing new, and end when they are
        idle. Whoever asks for it from now on has it loaded anew."""
        self._directory.ways.pop(key, None)
        return bool(self.ask({"op": "drain", "key": key})["drained"])

    def clear(self) -> int:
        """How many versions were loaded; none is now."""
        self._directory.ways.clear()
        return int(self.ask({"op": "clear"})["evicted"])

    def pin(self, key: str, *, pinned: bool = True) -> None:
        """Keep a version resident whatever else needs room (or no longer); it need not be loaded yet."""
        self.ask({"op": "pin", "key": key, "pinned": pinned})

    def attend(self) -> Attendance:
        """This process's presence at the host as it runs now; blocks until this process has the duty to preload what is
        pinned, or another one has done so."""
        return Attendance(self.converse())

    def is_ready(self) -> bool:
        """Whether a client has loaded what is pinned since the host started."""
        return bool(self.ask({"op": "readiness"}, timeout_s=CONNECT_SECONDS)["ready"])

    def stats(self, timeout_s: float = 30.0) -> HostStats:
        """The pool as it is now."""
        answer = self.ask({"op": "stats"}, timeout_s=timeout_s)
        names = HostStats.__dataclass_fields__.keys() - {"runners"}
        return HostStats(runners=tuple(answer["runners"]), **{name: answer[name] for name in names})

    def check(self, library_set: str | None = None) -> dict[str, str]:
        """The library versions of a set (the default one), after a runner has proved that this machine can confine it.

        Raises:
            ConfinementUnavailable: it cannot. HostUnavailable: no host is there. ArtifactRejected: no such set is.
        """
        libraries: dict[str, str] = self.ask({"op": "check", "library_set": library_set}, timeout_s=180.0)["libraries"]
        return libraries

    def ask(self, request: Mapping[str, Any], fds: Sequence[int] = (), timeout_s: float = 30.0) -> dict[str, Any]:
        """The host's answer to one request; raises the fault that it names."""
        with HostConversation(self._path) as host:
            return host.ask(request, fds, timeout_s)

    def converse(self) -> HostConversation:
        """A connection to the host, for work that takes several messages."""
        return HostConversation(self._path)
