"""The host's side of one runner process: spawning, measuring and ending it."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtimes.errors import (
    ArtifactRejected,
    ConfinementUnavailable,
    DeadlineExceeded,
    HostUnavailable,
    ModelError,
    RunnerDied,
    RuntimeFault,
    from_message,
)
from runtimes.limits import Limits
from runtimes.messages import Caps, Connection, EndOfStream
from runtimes.page_limits import UNREADABLE
from runtimes.sandbox import THREADS_OF_A_SHARED_USER, THREADS_OF_A_SLOT
from runtimes.zygotes import Zygotes, thread_count

READY_SECONDS = 20.0
MEMORY_MAP_BYTES = 8192
CONTROL_CAPS = Caps(header_bytes=1 << 16, body_bytes=0, list_items=64, containers=64)  # a runner's words are few
FIRST_UID = 61_200  # below the kernel's overflow ids, above what systems give to people
SLOTS = 4_000
OPT_OUT_VARIABLE = "TENANTRY_RUN_UNCONFINED"
OPT_OUT_VALUE = "i-trust-every-artifact"


@dataclass(frozen=True)
class Ending:
    """How a runner ended and what it used in its life."""

    status: int
    cpu_seconds: float

    @property
    def signal(self) -> int | None:
        """The signal that ended it, if one did."""
        return -self.status if self.status < 0 else None

    def rejection(self) -> ArtifactRejected:
        """What an ending in mid-load or mid-work means for the artifact."""
        if self.signal == signal.SIGSYS:
            return ArtifactRejected("confinement_violation", "The artifact tried a forbidden system call (SIGSYS).")
        if self.signal == signal.SIGXCPU:
            return ArtifactRejected("load_timeout", "The artifact used more CPU time than its budget.")
        if self.signal == signal.SIGKILL:
            return ArtifactRejected(
                "load_memory", "The kernel ended the artifact's process, most likely for its memory."
            )
        if self.signal is not None:
            name = signal.Signals(self.signal).name
            return ArtifactRejected("load_crashed", f"The artifact crashed its process ({name}).")
        return ArtifactRejected("load_crashed", "The artifact ended its own process.")

    def failed_fit(self) -> RuntimeFault:
        """What an ending in mid-fit means for the fit."""
        if self.signal == signal.SIGXCPU:
            return DeadlineExceeded("The fit used more CPU time than its budget.")
        if self.signal == signal.SIGKILL:
            return RunnerDied("The kernel ended the fit, most likely for its memory.")
        return ModelError(f"The fit crashed its process (status {self.status}).", "fit_failed")

    def unread_document(self) -> RuntimeFault:
        """What an ending in the middle of a document means for it."""
        if self.signal == signal.SIGXCPU:
            return DeadlineExceeded("Reading the document used more CPU time than its budget.")
        if self.signal == signal.SIGKILL:
            return RunnerDied("The kernel ended the process that read the document, most likely for its memory.")
        return ModelError("The document crashed the program that reads it.", UNREADABLE)


class Child:
    """One runner process; only this object signals and reaps it, so its pid is never somebody else's."""

    def __init__(self, pid: int, control: Connection, memory_fd: int, slot: int) -> None:
        self.pid, self.control, self.slot = pid, control, slot
        self._memory_fd = memory_fd
        self._lock = threading.Lock()
        self.ending: Ending | None = None

    def private_bytes(self) -> int:
        """The memory that ending this process gives back, as the kernel counts it now."""
        with self._lock:
            try:
                text = os.pread(self._memory_fd, MEMORY_MAP_BYTES, 0)
            except OSError:  # the process is gone
                return 0
        return 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(b"Private_"))

    def cpu_seconds(self) -> float:
        """The CPU time it has used so far."""
        with self._lock:
            if self.ending is not None:
                return self.ending.cpu_seconds
            try:
                return time.clock_gettime(~self.pid << 3 | 2)  # CPUCLOCK_SCHED of the whole process
            except OSError:
                return 0.0

    def wanted_seconds(self) -> float:
        """The time in which its main thread ran or waited for a core, so far; its CPU time where the kernel keeps no
        such account."""
        try:
            ran_ns, waited_ns, _ = Path(f"/proc/{self.pid}/schedstat").read_text().split()
        except (OSError, ValueError):
            return self.cpu_seconds()
        return (int(ran_ns) + int(waited_ns)) / 1e9

    def signal_end(self) -> None:
        """Have the kernel end the process, without waiting for it."""
        with self._lock:
            if self.ending is None:
                os.kill(self.pid, signal.SIGKILL)

    def has_ended(self) -> bool:
        """Whether the process is gone; reaps it when it is."""
        return self._reap(os.WNOHANG) is not None

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended within the time."""
        with self._lock:
            if self.ending is not None:
                return True
            fd = os.pidfd_open(self.pid)
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(timeout_s * 1000)
        finally:
            os.close(fd)
        return self.has_ended()

    def kill(self) -> Ending:
        """End the process, if it has not ended by itself, and reap it."""
        self.signal_end()
        ending = self._reap(0)
        assert ending is not None
        self.control.close()
        return ending

    def _reap(self, options: int) -> Ending | None:
        with self._lock:
            if self.ending is None:
                pid, status, usage = os.wait4(self.pid, options)
                if pid == 0:
                    return None
                self.ending = Ending(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime)
                os.close(self._memory_fd)
                self._memory_fd = -1
            return self.ending


class Nursery:
    """Spawns runners: a slot and its uid, the zygote's fork, the handshake."""

    def __init__(self, zygotes: Zygotes) -> None:
        self._zygotes = zygotes
        self._lock = threading.Lock()
        self._slots: set[int] = set()
        self._confined = True

    def spawn(self, library_set: str, limits: Limits, fds: Mapping[str, int], *, cpu_seconds: int | None) -> Child:
        """A confined runner that has read nothing yet and holds these descriptors.

        Raises:
            ConfinementUnavailable: the kernel cannot confine, and the operator has not opted out.
            HostUnavailable: no zygote answers.
        """
        try:
            return self._spawn(library_set, limits, fds, cpu_seconds, confined=self._confined)
        except ConfinementUnavailable:
            if os.environ.get(OPT_OUT_VARIABLE) != OPT_OUT_VALUE:
                raise
            self._confined = False
            return self._spawn(library_set, limits, fds, cpu_seconds, confined=False)

    def release(self, child: Child) -> Ending:
        """End the runner and free its slot."""
        ending = child.kill()
        with self._lock:
            self._slots.discard(child.slot)
        return ending

    def _spawn(
        self, library_set: str, limits: Limits, fds: Mapping[str, int], cpu_seconds: int | None, *, confined: bool
    ) -> Child:
        slot = self._take_slot()
        try:
            child = self._fork(library_set, limits, fds, cpu_seconds, slot, confined=confined)
        except BaseException:
            with self._lock:
                self._slots.discard(slot)
            raise
        try:
            self._shake_hands(child)
        except BaseException:
            self.release(child)
            raise
        return child

    def _fork(
        self,
        library_set: str,
        limits: Limits,
        fds: Mapping[str, int],
        cpu_seconds: int | None,
        slot: int,
        *,
        confined: bool,
    ) -> Child:
        is_root = os.getuid() == 0
        order = {
            "uid": FIRST_UID + slot if is_root else os.getuid(),
            "memory_bytes": limits.memory_bytes,
            "cpu_seconds": cpu_seconds,
            "threads": THREADS_OF_A_SLOT if is_root else thread_count(os.getuid()) + THREADS_OF_A_SHARED_USER,
            "confined": confined,
        }
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            try:
                pid = self._zygotes.fork(library_set, order, {"control": theirs.fileno(), **fds})
            except BaseException:
                ours.close()
                raise
        memory_fd = _receive_fd(ours)
        return Child(pid, Connection(ours.detach(), CONTROL_CAPS), memory_fd, slot)

    def _shake_hands(self, child: Child) -> None:
        try:
            answer = child.control.receive(time.monotonic() + READY_SECONDS).header
        except (EndOfStream, DeadlineExceeded) as error:
            raise HostUnavailable("A runner did not start.") from error
        if answer.get("ready") is not True:
            raise from_message(answer.get("fault") or {})

    def _take_slot(self) -> int:
        with self._lock:
            slot = next((number for number in range(SLOTS) if number not in self._slots), None)
            if slot is None:
                raise HostUnavailable("Every runner slot of this machine is taken.")
            self._slots.add(slot)
            return slot


def _receive_fd(sock: socket.socket) -> int:
    """The descriptor that a new child sends before it is confined; -1 (memory unknown) when it died before."""
    sock.settimeout(READY_SECONDS)
    with suppress(OSError):
        _, fds, _, _ = socket.recv_fds(sock, 1, 1)
        if fds:
            return fds[0]
    return os.open("/dev/null", os.O_RDONLY)
