"""What the model host can do with its runners: load, watch, judge, work once."""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import select
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtimes import addresses, formats
from runtimes.children import Child, Ending, Nursery
from runtimes.errors import (
    ArtifactRejected,
    DeadlineExceeded,
    ProtocolFault,
    RuntimeFault,
    from_message,
    to_message,
)
from runtimes.libraries import BUILT_IN, LibrarySets
from runtimes.limits import Limits
from runtimes.messages import EndOfStream
from runtimes.pool import Pool
from runtimes.readiness import Readiness
from runtimes.residents import Resident
from runtimes.watching import Watch
from runtimes.zygotes import Zygotes

SAMPLE_SECONDS = 0.05
WATCH_SECONDS = 1.0
LAST_WORD_SECONDS = 1.0
LOST_SECONDS = 0.2
MIN_PATIENCE_SECONDS = 0.25
DEFAULT_LIBRARY_SET = "sklearn"
WARM_LIBRARY_SETS = (DEFAULT_LIBRARY_SET, "onnx")  # from the start, for most of what is served and inspected
IDLE_ZYGOTE_SECONDS = 900.0
NONCE_BITS = 62  # a generation stays within the 63 bits that a frame carries
log = logging.getLogger("runtimes.host")


@dataclass(frozen=True)
class Settings:
    """The bounds of this machine's pool."""

    folder: Path
    memory_bytes: int
    tenant_bytes: int
    max_runners: int
    library_sets: Path | None = None
    max_copies: int = 1


@dataclass(frozen=True)
class Job:
    """One piece of one-shot work: what the runner is told, where, and for how long."""

    order: Mapping[str, Any]
    library_set: str
    limits: Limits
    wall_seconds: float
    timeout: RuntimeFault
    explain: Callable[[Ending], RuntimeFault]


class Machine:
    """The pool, the zygotes and the runners of one model host."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.zygotes = Zygotes(LibrarySets(settings.library_sets))
        self.nursery = Nursery(self.zygotes)
        self.pool = Pool(
            memory_bytes=settings.memory_bytes,
            tenant_bytes=settings.tenant_bytes,
            max_runners=settings.max_runners,
            release=self.release,
        )
        # clients keep ways for longer than a host lives: no other host's runner may ever answer at one of them
        self._generations = itertools.count(secrets.randbits(NONCE_BITS))
        self._is_closed = threading.Event()
        self.readiness = Readiness()

    def load(self, request: Mapping[str, Any], bundle_fd: int) -> Resident:
        """The version loaded in a runner of its own and resident in the pool.

        Raises:
            ArtifactRejected, PoolFull, ConfinementUnavailable, HostUnavailable.
        """
        started = time.monotonic()
        resident = self._start(request, bundle_fd)
        try:
            self.pool.admit(resident, seconds=time.monotonic() - started)
        except RuntimeFault:
            self.release([resident])
            raise
        return resident

    def load_copy(self, original: Resident) -> None:
        """A further runner of a resident version, from the same bundle, where there is free room.

        Raises:
            PoolFull: there is none, or the version has left. Else as `load` does.
        """
        started = time.monotonic()
        bundle_fd = self.pool.open_for_copy(original)
        try:
            resident = self._start(original.order, bundle_fd)
        finally:
            os.close(bundle_fd)
        try:
            self.pool.admit_copy(resident, seconds=time.monotonic() - started)
        except RuntimeFault:
            self.release([resident])
            raise

    def release(self, residents: Sequence[Resident]) -> None:
        """End runners, all at once, and remove their sockets; their memory is free when this returns."""
        for resident in residents:
            Path(resident.path).unlink(missing_ok=True)
            resident.child.signal_end()
        for resident in residents:
            self.nursery.release(resident.child)
            os.close(resident.bundle_fd)

    def work_once(self, job: Job, fds: Mapping[str, int], client_fd: int) -> dict[str, Any]:
        """Run one inspection or fit until its client ends it; what it used, and its fault if it had one."""
        cpu_seconds = job.limits.cpu_seconds
        child = self.nursery.spawn(job.library_set, job.limits, fds, cpu_seconds=cpu_seconds)
        peak_bytes = 0
        fault: RuntimeFault | None = None
        try:
            child.control.send(job.order)
            deadline = time.monotonic() + job.wall_seconds
            while not child.wait(0.0):
                if _is_readable(client_fd, SAMPLE_SECONDS):
                    break
                peak_bytes = max(peak_bytes, child.private_bytes())
                if time.monotonic() > deadline:
                    fault = job.timeout
                    break
            peak_bytes = max(peak_bytes, child.private_bytes())
        except EndOfStream:
            pass
        finally:
            has_ended = child.has_ended()
            ending = self.nursery.release(child)
        if fault is None and has_ended:
            fault = job.explain(ending)
        held = self.zygotes.libraries()
        return _usage(ending, peak_bytes, fault) | {"libraries": held.get(job.library_set, {}), "library_sets": held}

    def mourn(self, key: str, generation: int) -> None:
        """Give a runner that a client lost a moment to be gone: its sockets close before its process has ended.

        One that lives on and has closed its listener is ended: nobody could ever ask it again.
        """
        resident = self.pool.runner(key, generation)
        if resident is None or resident.child.wait(LOST_SECONDS):
            return
        try:
            addresses.connect(Path(resident.path), LOST_SECONDS).close()
        except ConnectionRefusedError:
            self.judge(key, generation, is_protocol_fault=True, waited_seconds=0.0)
        except OSError:
            pass  # many wait for it

    def judge(self, key: str, generation: int, *, is_protocol_fault: bool, waited_seconds: float) -> None:
        """Act on a client's complaint: a liar is ended at once, a runner when it answers nobody for a call's time."""
        resident = self.pool.runner(key, generation)
        if resident is None:
            return
        silent_seconds = min(waited_seconds, time.monotonic() - resident.answered_at)
        patience = max(resident.limits.call_seconds - silent_seconds, MIN_PATIENCE_SECONDS)
        if not is_protocol_fault and self._answers(resident, patience):
            return
        if self.pool.end(resident):
            self.pool.counters.kills += 1
            log.warning("runner killed key=%s tenant=%s reason=%s", key, resident.tenant, "fault")

    def warm_up(self, library_set: str) -> None:
        """Have a library set's zygote there before it is needed."""
        with suppress(RuntimeFault):  # whoever needs it hears why
            self.zygotes.get(library_set)

    def watch(self) -> None:
        """Look after the runners and the zygotes until `close`."""
        watch = Watch(self, self.settings.max_copies)
        while not self._is_closed.wait(WATCH_SECONDS):
            try:
                watch.look()
                self.zygotes.end_idle(IDLE_ZYGOTE_SECONDS)
            except Exception:  # a host that nobody watches would keep runners that must go
                log.exception("watch failed")

    def stats(self) -> dict[str, Any]:
        """The pool's counters and its runners, as plain values."""
        residents = self.pool.residents()
        return {
            "runners": [_describe(resident, resident.key in self.pool.pinned) for resident in residents],
            "bytes": sum(resident.private_bytes for resident in residents),
            "memory_bytes": self.settings.memory_bytes,
            "zygotes": {name: zygote.process.pid for name, zygote in self.zygotes.running().items()},
            "library_sets": self.zygotes.libraries(),
            "epoch": self.readiness.epoch,
            "is_ready": self.readiness.is_ready,
            **asdict(self.pool.counters),
        }

    def check(self, library_set: str) -> dict[str, str]:
        """The versions in a library set, after a runner of it has proved that confinement works here."""
        self.nursery.release(self.nursery.spawn(library_set, Limits(), {}, cpu_seconds=1))
        return self.zygotes.get(library_set).libraries

    def close(self) -> None:
        """End every runner and zygote."""
        self._is_closed.set()
        self.pool.clear()
        self.zygotes.close()

    def _start(self, request: Mapping[str, Any], bundle_fd: int) -> Resident:
        """A runner that has loaded a version and listens; nobody knows of it yet."""
        limits = Limits.from_json(request["limits"])
        generation = next(self._generations)
        path = self.settings.folder / f"{generation:x}.sock"
        try:
            with addresses.listen(path) as listener:
                fds = {"bundle": bundle_fd, "listener": listener.fileno()}
                child = self.nursery.spawn(library_set_of(request), limits, fds, cpu_seconds=None)
            self._load_into(child, request, generation, limits)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        key, tenant = request["key"], request["tenant"]
        return Resident(key, tenant, generation, str(path), child, limits, request, os.dup(bundle_fd))

    def _load_into(self, child: Child, request: Mapping[str, Any], generation: int, limits: Limits) -> None:
        asked = {name: request[name] for name in ("key", "format", "options", "limits")}
        order = {"op": "serve", "generation": generation, **asked}
        try:
            child.control.send(order)
            answer = child.control.receive(time.monotonic() + limits.load_seconds).header
            if answer.get("loaded") is not True:
                raise _as_rejection(from_message(answer.get("fault") or {}))
        except BaseException as error:
            raise self._explain(child, error, limits) from error

    def _explain(self, child: Child, error: BaseException, limits: Limits) -> BaseException:
        """End a runner that did not load, and say why."""
        has_ended = isinstance(error, EndOfStream) and child.wait(LAST_WORD_SECONDS)
        ending = self.nursery.release(child)
        if has_ended:
            return ending.rejection()
        if isinstance(error, EndOfStream | ProtocolFault):
            return ArtifactRejected(
                "confinement_violation", "The artifact tampered with the runner while it was loaded."
            )
        if isinstance(error, DeadlineExceeded):
            return ArtifactRejected("load_timeout", f"Loading took longer than {limits.load_seconds:g} seconds.")
        return error

    def _answers(self, resident: Resident, patience_s: float) -> bool:
        nonce = time.monotonic_ns()
        try:
            with resident.control_lock:
                resident.child.control.send({"op": "ping", "nonce": nonce}, deadline=time.monotonic() + patience_s)
                answer = resident.child.control.receive(time.monotonic() + patience_s).header
        except (EndOfStream, DeadlineExceeded, ProtocolFault, OSError):
            return False
        return answer.get("alive") == nonce


def library_set_of(request: Mapping[str, Any]) -> str:
    """The declared set that the version's metadata names, or else the one that serves its format."""
    named = str(request["options"].get("library_set") or DEFAULT_LIBRARY_SET)
    return formats.serving_set(request["format"]) if named in BUILT_IN else named


def _as_rejection(fault: RuntimeFault) -> ArtifactRejected:
    """What a runner says about its artifact can only be a rejection, whatever kind it claims."""
    return fault if isinstance(fault, ArtifactRejected) else ArtifactRejected("unreadable_artifact", fault.message)


def _is_readable(fd: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def _usage(ending: Ending, peak_bytes: int, fault: RuntimeFault | None) -> dict[str, Any]:
    told = None if fault is None else to_message(fault)
    return {"peak_bytes": peak_bytes, "cpu_seconds": ending.cpu_seconds, "fault": told}


def _describe(resident: Resident, is_pinned: bool) -> dict[str, Any]:
    names = ("key", "tenant", "generation", "private_bytes", "in_flight", "loaded_at")
    described = {name: getattr(resident, name) for name in names}
    return described | {
        "pid": resident.child.pid,
        "pinned": is_pinned,
        "limits": resident.limits.to_json(),
        "retired": resident.retired_at > 0,
        "calls": resident.traffic.calls,
        "call_seconds": resident.traffic.seconds,
        "cpu_seconds": resident.child.cpu_seconds(),
    }
