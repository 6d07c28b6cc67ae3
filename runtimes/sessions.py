"""One client's conversation with the model host: a request, its descriptors, an answer, and so on in turn."""

from __future__ import annotations

import fcntl
import logging
import math
import os
import select
import socket
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from runtimes.children import Ending
from runtimes.errors import (
    ArtifactRejected,
    DeadlineExceeded,
    HostUnavailable,
    ProtocolFault,
    RuntimeFault,
    describe,
    to_message,
)
from runtimes.libraries import PAGES
from runtimes.limits import Limits
from runtimes.machine import DEFAULT_LIBRARY_SET, Job, Machine, library_set_of
from runtimes.messages import Caps, Connection, EndOfStream
from runtimes.residents import Resident

CAPS = Caps(header_bytes=4 << 20, body_bytes=0)
MAX_FDS = 3
REQUEST_SECONDS = 30.0
FIT_ORDER = ("op", "trainer", "params", "target", "validation", "format", "watch")
TABLE_ORDER = (*FIT_ORDER, "signature", "task", "probabilities", "known")
PAGE_ORDER = ("op", "media_type", "boxes", "box")
DUTY_SECONDS = 900.0  # for the loading client to fetch and pack its bundle
log = logging.getLogger("runtimes.host")

Request = Mapping[str, Any]
Answer = dict[str, Any]


class Session:
    """Serves one connection. Every request follows one byte that carries its descriptors."""

    def __init__(self, machine: Machine, sock: socket.socket) -> None:
        self._machine, self._sock = machine, sock
        self._connection = Connection(sock.fileno(), CAPS)
        self._has_reported = False
        self._operations: Mapping[str, Callable[[Request, list[int]], Answer]] = {
            "lease": self._lease,
            "inspect": self._inspect,
            "scan": self._inspect,
            "compile": self._compile,
            "fit": self._work_on_table,
            "fit_custom": self._work_on_table,
            "profile": self._work_on_table,
            "score": self._work_on_table,
            "pages": self._work_on_pages,
            "draw": self._work_on_pages,
            "crop": self._work_on_pages,
            "tabulate": self._work_on_table,
            "fault": self._fault,
            "report": self._report,
            "find": self._find,
            "touch": lambda request, fds: {"resident": machine.pool.touch(str(request["key"]))},
            "evict": self._evict,
            "clear": lambda request, fds: {"evicted": machine.pool.clear()},
            "drain": lambda request, fds: {"drained": machine.pool.drain(str(request["key"]))},
            "pin": self._pin,
            "claim_preload": self._claim_preload,
            "preload_done": lambda request, fds: {"ready": machine.readiness.finish(self)},
            "readiness": lambda request, fds: {"ready": machine.readiness.is_ready, "epoch": machine.readiness.epoch},
            "stats": lambda request, fds: machine.stats(),
            "check": lambda request, fds: {
                "libraries": machine.check(str(request.get("library_set") or DEFAULT_LIBRARY_SET))
            },
        }

    def run(self) -> None:
        """Answer requests until the client goes away."""
        try:
            while True:
                request, fds = self._next(None)
                try:
                    self._answer(self._perform(request, fds))
                finally:
                    _close(fds)
        except ProtocolFault as fault:
            with suppress(EndOfStream, DeadlineExceeded, OSError):
                self._answer({"ok": False, "fault": to_message(fault)})
        except (EndOfStream, DeadlineExceeded, OSError):
            pass  # the client is gone
        finally:
            self._sock.close()
            if self._has_reported:
                self._machine.pool.forget(self)
            self._machine.readiness.abandon(self)

    def _perform(self, request: Request, fds: list[int]) -> Answer:
        try:
            operation = self._operations.get(str(request.get("op")))
            if operation is None:
                raise ProtocolFault("The model host does not know this operation.")
            return {"ok": True, **operation(request, fds)}
        except RuntimeFault as fault:
            return {"ok": False, "fault": to_message(fault)}
        except (EndOfStream, BrokenPipeError, ConnectionResetError):
            raise EndOfStream from None
        except Exception as error:
            log.exception("request failed op=%s", request.get("op"))
            return {"ok": False, "fault": to_message(HostUnavailable(f"The model host failed ({describe(error)})."))}

    def _next(self, timeout_s: float | None) -> tuple[Request, list[int]]:
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLIN)
        if not poll.poll(None if timeout_s is None else timeout_s * 1000):
            raise DeadlineExceeded("The client sent nothing.")
        data, fds, _, _ = socket.recv_fds(self._sock, 1, MAX_FDS)
        if not data:
            raise EndOfStream
        try:
            return self._connection.receive(time.monotonic() + REQUEST_SECONDS).header, fds
        except BaseException:
            _close(fds)
            raise

    def _answer(self, answer: Answer) -> None:
        self._connection.send(answer, deadline=time.monotonic() + REQUEST_SECONDS)

    def _lease(self, request: Request, fds: list[int]) -> Answer:
        """The way to a resident version, or the duty to send its bundle and then the way to it."""
        key = str(request["key"])
        self._machine.mourn(key, int(request.get("lost", 0)))
        wait_s = request.get("wait_s")
        residents = self._machine.pool.lease(key, None if wait_s is None else float(wait_s))
        if residents:
            return _ways_to(residents)
        loaded = None
        while loaded is None:
            try:
                self._answer({"ok": True, "load": True})
                load, fds = self._next(DUTY_SECONDS)
            except BaseException:
                self._machine.pool.abandon(key)
                raise
            try:
                loaded = self._load({**load, "key": key}, fds)
            finally:
                _close(fds)
        return _ways_to([loaded])

    def _load(self, request: Request, fds: list[int]) -> Resident | None:
        """The loaded version; None where it cannot be loaded in this form and its client has another."""
        key = request["key"]
        try:
            with _ReadOnly(fds) as bundle_fd:
                return self._machine.load(request, bundle_fd)
        except RuntimeFault as fault:
            if isinstance(fault, ArtifactRejected) and request.get("has_fallback"):
                log.warning("form not loaded key=%s tenant=%s reason=%s", key, request["tenant"], fault.reason)
                return None
            self._machine.pool.fail(key, fault)
            raise
        except BaseException:
            self._machine.pool.abandon(key)
            raise

    def _inspect(self, request: Request, fds: list[int]) -> Answer:
        limits = Limits.from_json(request["limits"])
        seconds = 2 * limits.load_seconds
        timeout = ArtifactRejected(
            "load_timeout", f"Loading and trying the artifact took longer than {seconds:g} seconds."
        )
        library_set = str(request.get("library_set") or DEFAULT_LIBRARY_SET)
        order = {"op": request["op"], "library_set": library_set, "options": request["options"]}
        return self._work_once(Job(order, library_set, limits, seconds, timeout, Ending.rejection), fds)

    def _work_on_table(self, request: Request, fds: list[int]) -> Answer:
        limits = Limits.from_json(request["limits"])
        timeout = DeadlineExceeded(f"It took longer than its {limits.fit_seconds:g} seconds.")
        order = {name: request[name] for name in TABLE_ORDER if name in request}
        library_set = str(request.get("library_set") or DEFAULT_LIBRARY_SET)
        job = Job(order, library_set, limits, limits.fit_seconds, timeout, Ending.failed_fit)
        return self._work_once(job, fds)

    def _work_on_pages(self, request: Request, fds: list[int]) -> Answer:
        limits = Limits.from_json(request["limits"])
        timeout = DeadlineExceeded(f"Reading the document took longer than its {limits.fit_seconds:g} seconds.")
        order = {name: request[name] for name in PAGE_ORDER if name in request}
        return self._work_once(Job(order, PAGES, limits, limits.fit_seconds, timeout, Ending.unread_document), fds)

    def _compile(self, request: Request, fds: list[int]) -> Answer:
        given = Limits.from_json(request["limits"])
        limits = replace(given, cpu_seconds=math.ceil(given.compile_seconds))
        timeout = DeadlineExceeded(f"Compiling took longer than {limits.compile_seconds:g} seconds.")
        order = {name: request[name] for name in ("op", "format", "options")} | {"limits": limits.to_json()}
        library_set = library_set_of(request)
        job = Job(order, library_set, limits, limits.compile_seconds, timeout, Ending.rejection)
        return self._work_once(job, fds)

    def _work_once(self, job: Job, fds: list[int]) -> Answer:
        if len(fds) != 2:
            raise ProtocolFault("One-shot work needs a file and a channel.")
        with _ReadOnly(fds[:1]) as bundle_fd:
            given = {"bundle": bundle_fd, "channel": fds[1]}
            return self._machine.work_once(job, given, self._sock.fileno())

    def _fault(self, request: Request, fds: list[int]) -> Answer:
        self._machine.judge(
            str(request["key"]),
            int(request["generation"]),
            is_protocol_fault=bool(request["is_protocol_fault"]),
            waited_seconds=float(request["waited_seconds"]),
        )
        return {}

    def _report(self, request: Request, fds: list[int]) -> Answer:
        """Which of the versions reported on have other runners than the client knows."""
        self._has_reported = True
        pool = self._machine.pool
        for used in request["used"]:
            pool.report(self, *used)
        news: dict[str, Answer | None] = {}
        for key, known in request["known"].items():
            residents = pool.find(key)
            if known != [resident.generation for resident in residents]:
                news[key] = _ways_to(residents) if residents else None
        return {"ways": news}

    def _claim_preload(self, request: Request, fds: list[int]) -> Answer:
        readiness = self._machine.readiness
        return {"duty": readiness.claim(self), "epoch": readiness.epoch}

    def _find(self, request: Request, fds: list[int]) -> Answer:
        return {"resident": bool(self._machine.pool.find(str(request["key"])))}

    def _evict(self, request: Request, fds: list[int]) -> Answer:
        return {"evicted": self._machine.pool.evict(str(request["key"]))}

    def _pin(self, request: Request, fds: list[int]) -> Answer:
        pinned = self._machine.pool.pinned
        (pinned.add if request["pinned"] else pinned.discard)(str(request["key"]))
        return {}


class _ReadOnly:
    """The first descriptor, proved to be a regular file and reopened if it could be written through."""

    def __init__(self, fds: list[int]) -> None:
        if len(fds) != 1 or not stat.S_ISREG(os.fstat(fds[0]).st_mode):
            raise ProtocolFault("A bundle is one regular file.")
        self._given = fds[0]

    def __enter__(self) -> int:
        is_read_only = fcntl.fcntl(self._given, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        # /proc reopens a file that may have no name any more
        self._fd = os.dup(self._given) if is_read_only else os.open(f"/proc/self/fd/{self._given}", os.O_RDONLY)
        return self._fd

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._fd)


def _ways_to(residents: Sequence[Resident]) -> Answer:
    ways = [[resident.path, resident.generation] for resident in residents]
    return {"ways": ways, "limits": residents[0].limits.to_json()}


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
    fds.clear()
