"""The client of the model host: what web and Celery processes use to reach models.

Imports numpy and msgpack only, never a model's library. Everything that a runner answers is checked before it is used.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar

from runtimes import addresses
from runtimes.asking import Question, RunnerConnection, Way
from runtimes.batching import rows_of
from runtimes.compilation.requesting import Compilation, compile_artifact
from runtimes.conversation import CONNECT_SECONDS, HostConversation, left, within
from runtimes.errors import (
    DeadlineExceeded,
    HostUnavailable,
    ModelError,
    ProtocolFault,
    RunnerDied,
)
from runtimes.fits import FitReport, Progress, Validation, fit
from runtimes.limits import Limits
from runtimes.messages import EndOfStream
from runtimes.profiles import Profile
from runtimes.protocol import Prediction
from runtimes.readiness import Attendance
from runtimes.reporting import News, Reporter
from runtimes.signature import Batch, Signature
from runtimes.table_work import Score, profile, score
from runtimes.ways import Line, Ways
from runtimes.work import Inspection, inspect

LINES_A_THREAD = 64
LEASE_SECONDS = 1200.0
Answered = TypeVar("Answered")

__all__ = ["FitReport", "HostClient", "Inspection", "LoadRequest", "Prediction", "Progress", "Question", "Runner"]


@dataclass(frozen=True)
class LoadRequest:
    """What the host needs to load a version.

    bundle_fd: a packed bundle; the client closes it when the host has it.
    options: signature (as JSON), and labels or architecture where they were declared.
    """

    bundle_fd: int
    tenant: str
    format: str
    options: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


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


_clients: weakref.WeakSet[HostClient] = weakref.WeakSet()


class HostClient:
    """The model host of this machine, for every thread of this process; a fork of the process may go on using it."""

    def __init__(self, address: str) -> None:
        self._path = addresses.path_of(address)
        self._ways: dict[str, Ways] = {}
        self._local = threading.local()
        self._reporter = Reporter(self)
        _clients.add(self)

    def runner(self, key: str, loader: Callable[[], LoadRequest], deadline_s: float | None = None) -> Runner:
        """The runner of a version, resident or loaded now.

        loader: called only when the version is not resident and nobody else is loading it. Blocks while it loads.
        deadline_s: how long the caller can wait. The loader runs in the caller's thread and is not interrupted: the
            time is looked at before and after it. What it gave is loaded even when nobody waits for it any more.

        Raises:
            ArtifactRejected, PoolFull, ConfinementUnavailable, HostUnavailable, and whatever the loader raises.
            DeadlineExceeded: the version was not there in time.
        """
        self._ways_to(key, loader, None if deadline_s is None else time.monotonic() + deadline_s)
        return Runner(self, key, loader)

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

    def resident(self, key: str) -> bool:
        """Whether the version is loaded now."""
        return bool(self.ask({"op": "find", "key": key})["resident"])

    def evict(self, key: str) -> bool:
        """Whether the version was loaded; its runner is gone now, and a remembered failure is forgotten."""
        self._ways.pop(key, None)
        return bool(self.ask({"op": "evict", "key": key})["evicted"])

    def drain(self, key: str) -> bool:
        """Whether the version was loaded; its runners answer what is in flight, take nothing new, and end when they are
        idle. Whoever asks for it from now on has it loaded anew."""
        self._ways.pop(key, None)
        return bool(self.ask({"op": "drain", "key": key})["drained"])

    def clear(self) -> int:
        """How many versions were loaded; none is now."""
        self._ways.clear()
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

    def stats(self) -> HostStats:
        """The pool as it is now."""
        answer = self.ask({"op": "stats"})
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

    def known_ways(self, key: str) -> Sequence[int]:
        """The generations of a version's runners, as far as this client knows."""
        return [way.generation for way in self._ways.get(key, ())]

    def learn(self, news: News) -> None:
        """Take in which runners these versions have now: a further one, one less, or none."""
        for key, told in news.items():
            if ways := _ways_in(told) if told else ():
                self._ways[key] = ways
            else:
                self._ways.pop(key, None)

    def _lease(self, key: str, loader: Callable[[], LoadRequest], deadline: float | None, lost: int) -> Ways:
        """The ways to a version's runners; lost: the generation of one that this client cannot reach any more."""
        with within(deadline), HostConversation(self._path, left(deadline, CONNECT_SECONDS)) as host:
            wait_s = left(deadline, LEASE_SECONDS)
            request = {"op": "lease", "key": key, "lost": lost, "wait_s": None if deadline is None else wait_s}
            answer = host.ask(request, (), wait_s)
            if answer.get("load"):
                left(deadline, LEASE_SECONDS)  # leaving now passes the duty to load on
                answer = _send_bundle(host, loader(), deadline)
        return _ways_in(answer)

    def _forget(self, key: str, used: Way) -> None:
        """Ask the host again next time, unless another thread has done so already."""
        if used in self._ways.get(key, ()):
            self._ways.pop(key, None)

    def _ways_to(self, key: str, loader: Callable[[], LoadRequest], deadline: float | None, lost: int = 0) -> Ways:
        ways = self._ways.get(key)
        if ways is None:
            ways = self._ways[key] = self._lease(key, loader, deadline, lost)
        return ways

    def _line(self, key: str) -> Line:
        """This thread's connections to a version's runners; those used longest ago go when there are many."""
        try:
            lines: OrderedDict[str, Line] = self._local.lines
        except AttributeError:
            lines = self._local.lines = OrderedDict()
        line = lines.get(key)
        if line is None:
            line = lines[key] = Line(key, self._reporter.tally, self._complain)
            if len(lines) > LINES_A_THREAD:
                lines.popitem(last=False)[1].close()
        else:
            lines.move_to_end(key)
        return line

    def _complain(self, key: str, way: Way, *, is_protocol_fault: bool, waited_seconds: float) -> None:
        """Tell the host, which judges; nobody waits for its verdict."""
        complaint = {
            "op": "fault",
            "key": key,
            "generation": way.generation,
            "is_protocol_fault": is_protocol_fault,
            "waited_seconds": waited_seconds,
        }
        try:
            with self.converse() as host:
                host.tell(complaint)
        except HostUnavailable:
            pass  # then the runner is gone as well

    def _begin_anew(self) -> None:
        """Own no connection and no thread after a fork: the parent goes on using those."""
        self._local = threading.local()
        self._reporter = Reporter(self)


def _begin_all_anew() -> None:
    for client in list(_clients):
        client._begin_anew()


os.register_at_fork(after_in_child=_begin_all_anew)


class Runner:
    """A version's runner, wherever it lives now."""

    def __init__(self, client: HostClient, key: str, loader: Callable[[], LoadRequest]) -> None:
        self._client, self._key, self._loader = client, key, loader

    def predict(self, batch: Batch, *, probabilities: bool = False, deadline_s: float) -> Prediction:
        """Predict every row of a batch that fits the signature.

        A runner that is gone (evicted, or its machine's host restarted) is asked for again once, within the deadline.

        Raises:
            ModelError: the model raised. DeadlineExceeded: no answer in time. RunnerDied: it died twice.
            ProtocolFault: it answered what it must not. And what `HostClient.runner` raises.
        """
        rows = rows_of(batch)
        return self._asked(
            rows,
            deadline_s,
            lambda connection, deadline: connection.call(batch, rows, probabilities=probabilities, deadline=deadline),
        )

    def predict_together(self, questions: Sequence[Question], *, deadline_s: float) -> list[Prediction | ModelError]:
        """The prediction of each question, or what the model raised on it; the runner may predict them as one batch.

        Raises:
            As `predict` does, but no ModelError of a single question.
        """
        if not questions:
            return []
        return self._asked(
            max(rows_of(question.batch) for question in questions),
            deadline_s,
            lambda connection, deadline: connection.call_together(questions, deadline),
        )

    def _asked(self, most_rows: int, deadline_s: float, ask: Callable[[RunnerConnection, float], Answered]) -> Answered:
        deadline = time.monotonic() + deadline_s
        client, key, lost = self._client, self._key, 0
        for is_last in (False, True):
            ways = client._ways_to(key, self._loader, deadline, lost)
            line = client._line(key)
            way = line.choose(ways)
            if most_rows > way.limits.rows:
                raise ModelError(f"A request may have at most {way.limits.rows} rows.", "too_many_rows")
            try:
                return self._call(line, way, deadline, ask)
            except (EndOfStream, OSError):
                line.drop(way)
                client._forget(key, way)
                lost = way.generation
                if is_last:
                    raise RunnerDied("The model's runner died while it predicted.") from None
        raise AssertionError("unreachable")

    def _call(
        self, line: Line, way: Way, deadline: float, ask: Callable[[RunnerConnection, float], Answered]
    ) -> Answered:
        connection = line.connection(way, deadline)
        try:
            return ask(connection, deadline)
        except (DeadlineExceeded, ProtocolFault) as fault:
            line.drop(way)
            is_protocol_fault = isinstance(fault, ProtocolFault)
            waited_seconds = connection.waited_seconds
            self._client._complain(self._key, way, is_protocol_fault=is_protocol_fault, waited_seconds=waited_seconds)
            raise


def _ways_in(answer: Mapping[str, Any]) -> Ways:
    limits = Limits.from_json(answer["limits"])
    return tuple(Way(path, generation, limits) for path, generation in answer["ways"])


def _send_bundle(host: HostConversation, load: LoadRequest, deadline: float | None) -> dict[str, Any]:
    """The host's answer when it has loaded; it goes on loading for the next caller when this one cannot wait."""
    request = {
        "op": "load",
        "tenant": load.tenant,
        "format": load.format,
        "options": dict(load.options),
        "limits": load.limits.to_json(),
    }
    try:
        host.tell(request, [load.bundle_fd])
    finally:
        os.close(load.bundle_fd)
    return host.answer(left(deadline, LEASE_SECONDS))
