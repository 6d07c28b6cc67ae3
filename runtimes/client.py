"""The client of the model host: what web and Celery processes use to reach models.

Imports numpy and msgpack only, never a model's library. Everything that a runner answers is checked before it is used.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar

from runtimes import addresses
from runtimes.asking import Question, RunnerConnection, Way
from runtimes.batching import rows_of
from runtimes.conversation import CONNECT_SECONDS, HostConversation, left, within
from runtimes.errors import (
    DeadlineExceeded,
    HostUnavailable,
    ModelError,
    ProtocolFault,
    RunnerDied,
    RuntimeFault,
)
from runtimes.fits import FitReport, Progress, Validation, fit
from runtimes.limits import Limits
from runtimes.messages import EndOfStream
from runtimes.protocol import Prediction
from runtimes.reporting import Reporter
from runtimes.signature import Batch
from runtimes.work import Inspection, inspect

CONNECTIONS_A_THREAD = 64
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
    """The pool's runners and counters.

    zygotes: the process of each library set that is warm. library_sets: the versions in each set of the machine.
    """

    runners: tuple[Mapping[str, Any], ...]
    bytes: int
    memory_bytes: int
    hits: int
    misses: int
    loads: int
    failed_loads: int
    evictions: int
    deaths: int
    kills: int
    load_seconds: float
    zygotes: Mapping[str, int]
    library_sets: Mapping[str, Mapping[str, str]]


class HostClient:
    """The model host of this machine, for every thread of this process; a fork of the process may go on using it."""

    def __init__(self, address: str) -> None:
        self._path = addresses.path_of(address)
        self._ways: dict[str, Way] = {}
        self._local = threading.local()
        self._reporter = Reporter(self)

    def runner(self, key: str, loader: Callable[[], LoadRequest], deadline_s: float | None = None) -> Runner:
        """The runner of a version, resident or loaded now.

        loader: called only when the version is not resident and nobody else is loading it. Blocks while it loads.
        deadline_s: how long the caller can wait. The loader runs in the caller's thread and is not interrupted: the
            time is looked at before and after it. What it gave is loaded even when nobody waits for it any more.

        Raises:
            ArtifactRejected, PoolFull, ConfinementUnavailable, HostUnavailable, and whatever the loader raises.
            DeadlineExceeded: the version was not there in time.
        """
        self._way(key, loader, None if deadline_s is None else time.monotonic() + deadline_s)
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

    def resident(self, key: str) -> bool:
        """Whether the version is loaded now."""
        return bool(self.ask({"op": "find", "key": key})["resident"])

    def evict(self, key: str) -> bool:
        """Whether the version was loaded; its runner is gone now, and a remembered failure is forgotten."""
        self._ways.pop(key, None)
        return bool(self.ask({"op": "evict", "key": key})["evicted"])

    def clear(self) -> int:
        """How many versions were loaded; none is now."""
        self._ways.clear()
        return int(self.ask({"op": "clear"})["evicted"])

    def pin(self, key: str, *, pinned: bool = True) -> None:
        """Keep a version resident whatever else needs room (or no longer); it need not be loaded yet."""
        self.ask({"op": "pin", "key": key, "pinned": pinned})

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

    def _lease(self, key: str, loader: Callable[[], LoadRequest], deadline: float | None, lost: int) -> Way:
        """The way to a version's runner; lost: the generation of the one that this client cannot reach any more."""
        with within(deadline), HostConversation(self._path, left(deadline, CONNECT_SECONDS)) as host:
            wait_s = left(deadline, LEASE_SECONDS)
            request = {"op": "lease", "key": key, "lost": lost, "wait_s": None if deadline is None else wait_s}
            answer = host.ask(request, (), wait_s)
            if answer.get("load"):
                left(deadline, LEASE_SECONDS)  # leaving now passes the duty to load on
                answer = _send_bundle(host, loader(), deadline)
        return Way(answer["path"], answer["generation"], Limits.from_json(answer["limits"]))

    def _forget(self, key: str, used: Way) -> None:
        """Ask the host again next time, unless another thread has done so already."""
        if self._ways.get(key) == used:
            self._ways.pop(key, None)

    def _way(self, key: str, loader: Callable[[], LoadRequest], deadline: float | None, lost: int = 0) -> Way:
        way = self._ways.get(key)
        if way is None:
            way = self._ways[key] = self._lease(key, loader, deadline, lost)
        return way

    def _connection(self, key: str, way: Way, deadline: float) -> RunnerConnection:
        """This thread's connection to a runner; the least recently used one goes when there are many."""
        connections = self._own_connections()
        known = connections.pop(key, None)
        if known is None or known.generation != way.generation:
            if known is not None:
                known.close()
            known = RunnerConnection(key, way, left(deadline, CONNECT_SECONDS))
        connections[key] = known
        if len(connections) > CONNECTIONS_A_THREAD:
            connections.popitem(last=False)[1].close()
        return known

    def _disconnect(self, key: str) -> None:
        connection = self._own_connections().pop(key, None)
        if connection is not None:
            connection.close()

    def _own_connections(self) -> OrderedDict[str, RunnerConnection]:
        """This thread's connections; after a fork, none: the parent goes on using those."""
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.pid, self._local.connections = os.getpid(), OrderedDict()
        connections: OrderedDict[str, RunnerConnection] = self._local.connections
        return connections


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
        lost = 0
        for is_last in (False, True):
            way = self._client._way(self._key, self._loader, deadline, lost)
            if most_rows > way.limits.rows:
                raise ModelError(f"A request may have at most {way.limits.rows} rows.", "too_many_rows")
            try:
                return self._call(way, deadline, ask)
            except (EndOfStream, OSError):
                self._client._disconnect(self._key)
                self._client._forget(self._key, way)
                lost = way.generation
                if is_last:
                    raise RunnerDied("The model's runner died while it predicted.") from None
        raise AssertionError("unreachable")

    def _call(self, way: Way, deadline: float, ask: Callable[[RunnerConnection, float], Answered]) -> Answered:
        connection = self._client._connection(self._key, way, deadline)
        started = time.monotonic()
        try:
            with self._client._reporter.calling(self._key, way.generation):
                return ask(connection, deadline)
        except (DeadlineExceeded, ProtocolFault) as fault:
            self._client._disconnect(self._key)
            self._complain(way, fault, time.monotonic() - started)
            raise

    def _complain(self, way: Way, fault: RuntimeFault, waited_seconds: float) -> None:
        """Tell the host, which judges; nobody waits for its verdict."""
        complaint = {
            "op": "fault",
            "key": self._key,
            "generation": way.generation,
            "is_protocol_fault": isinstance(fault, ProtocolFault),
            "waited_seconds": waited_seconds,
        }
        try:
            with self._client.converse() as host:
                host.tell(complaint)
        except HostUnavailable:
            pass  # then the runner is gone as well


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
