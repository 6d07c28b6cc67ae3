"""Where the runners of versions are: what this process knows, its threads' connections, and asking over them."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from runtimes.asking import Question, RunnerConnection, Way
from runtimes.batching import rows_of
from runtimes.conversation import CONNECT_SECONDS, HostConversation, left, within
from runtimes.errors import DeadlineExceeded, HostUnavailable, ModelError, ProtocolFault, RunnerDied
from runtimes.limits import Limits
from runtimes.messages import EndOfStream
from runtimes.protocol import Prediction
from runtimes.reporting import News, Reporter
from runtimes.signature import Batch
from runtimes.ways import Line, Ways

LINES_A_THREAD = 64
LEASE_SECONDS = 1200.0
Answered = TypeVar("Answered")


@dataclass(frozen=True)
class LoadRequest:
    """What the host needs to load a version.

    bundle_fd: a packed bundle; the client closes it when the host has it.
    options: signature (as JSON), and labels or architecture where they were declared; is_compiled, for a compiled form.
    fallback: makes what is loaded if this cannot be.
    """

    bundle_fd: int
    tenant: str
    format: str
    options: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    fallback: Callable[[], LoadRequest] | None = None


_directories: weakref.WeakSet[Directory] = weakref.WeakSet()


class Directory:
    """The ways to runners, for every thread of a process; a fork of the process begins with connections of its own.

    Unlike the rest of a client, it is on the way of every prediction: what is known is used without a lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.ways: dict[str, Ways] = {}
        self._local = threading.local()
        self._reporter = Reporter(self)
        _directories.add(self)

    def converse(self) -> HostConversation:
        """A connection to the host."""
        return HostConversation(self._path)

    def runner(self, key: str, loader: Callable[[], LoadRequest], deadline_s: float | None = None) -> Runner:
        """The runner of a version, resident or loaded now; `HostClient.runner` says more."""
        self.ways_to(key, loader, None if deadline_s is None else time.monotonic() + deadline_s)
        return Runner(self, key, loader)

    def known_ways(self, key: str) -> Sequence[int]:
        """The generations of a version's runners, as far as this client knows."""
        return [way.generation for way in self.ways.get(key, ())]

    def learn(self, news: News) -> None:
        """Take in which runners these versions have now: a further one, one less, or none."""
        for key, told in news.items():
            if ways := _ways_in(told) if told else ():
                self.ways[key] = ways
            else:
                self.ways.pop(key, None)

    def _lease(self, key: str, loader: Callable[[], LoadRequest], deadline: float | None, lost: int) -> Ways:
        """The ways to a version's runners; lost: the generation of one that this client cannot reach any more."""
        with within(deadline), HostConversation(self._path, left(deadline, CONNECT_SECONDS)) as host:
            wait_s = left(deadline, LEASE_SECONDS)
            request = {"op": "lease", "key": key, "lost": lost, "wait_s": None if deadline is None else wait_s}
            answer = host.ask(request, (), wait_s)
            while answer.get("load"):
                left(deadline, LEASE_SECONDS)  # leaving now passes the duty to load on
                load = loader()
                answer = _send_bundle(host, load, deadline)
                loader = load.fallback or loader
        return _ways_in(answer)

    def forget(self, key: str, used: Way) -> None:
        """Ask the host again next time, unless another thread has done so already."""
        if used in self.ways.get(key, ()):
            self.ways.pop(key, None)

    def ways_to(self, key: str, loader: Callable[[], LoadRequest], deadline: float | None, lost: int = 0) -> Ways:
        """The ways to a version's runners, known or leased now; lost: as `_lease` has it."""
        ways = self.ways.get(key)
        if ways is None:
            ways = self.ways[key] = self._lease(key, loader, deadline, lost)
        return ways

    def line(self, key: str) -> Line:
        """This thread's connections to a version's runners; those used longest ago go when there are many."""
        try:
            lines: OrderedDict[str, Line] = self._local.lines
        except AttributeError:
            lines = self._local.lines = OrderedDict()
        line = lines.get(key)
        if line is None:
            line = lines[key] = Line(key, self._reporter.tally, self.complain)
            if len(lines) > LINES_A_THREAD:
                lines.popitem(last=False)[1].close()
        else:
            lines.move_to_end(key)
        return line

    def complain(self, key: str, way: Way, *, is_protocol_fault: bool, waited_seconds: float) -> None:
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
    for directory in list(_directories):
        directory._begin_anew()


os.register_at_fork(after_in_child=_begin_all_anew)


class Runner:
    """A version's runner, wherever it lives now."""

    def __init__(self, directory: Directory, key: str, loader: Callable[[], LoadRequest]) -> None:
        self._directory, self._key, self._loader = directory, key, loader

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
        directory, key, lost = self._directory, self._key, 0
        for is_last in (False, True):
            ways = directory.ways_to(key, self._loader, deadline, lost)
            line = directory.line(key)
            way = line.choose(ways)
            if most_rows > way.limits.rows:
                raise ModelError(f"A request may have at most {way.limits.rows} rows.", "too_many_rows")
            try:
                return self._call(line, way, deadline, ask)
            except (EndOfStream, OSError):
                line.drop(way)
                directory.forget(key, way)
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
            self._directory.complain(self._key, way, is_protocol_fault=is_protocol_fault, waited_seconds=waited_seconds)
            raise


def not_again() -> LoadRequest:
    """A loader for whoever must not load anything."""
    raise RunnerDied("The model's runner is gone; ask for it with what loads it.")


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
        "has_fallback": load.fallback is not None,
    }
    try:
        host.tell(request, [load.bundle_fd])
    finally:
        os.close(load.bundle_fd)
    return host.answer(left(deadline, LEASE_SECONDS))
