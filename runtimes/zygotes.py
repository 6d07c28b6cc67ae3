"""The host's side of its zygotes: started when first needed, one a library set, restarted when one died."""

from __future__ import annotations

import functools
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack

from runtimes.errors import ArtifactRejected, HostUnavailable, RuntimeFault, from_message, plain, to_message
from runtimes.libraries import BUILT_IN, LibrarySet, LibrarySets

START_SECONDS = 120.0
FORK_SECONDS = 20.0
RETRY_SECONDS = 10.0
COUNT_SECONDS = 5.0  # counting takes milliseconds, more than a fork
MESSAGE_BYTES = 1 << 16
BOOT = """
import sys
sys.path.insert(0, sys.argv[1])
from runtimes import zygote
zygote.main(sys.argv[2], int(sys.argv[3]))
"""
ENVIRONMENT = {
    "PATH": "/nonexistent",
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",  # two threads made a histogram boosting fit take up to 1.5 s instead of 50 ms
    "OMP_WAIT_POLICY": "PASSIVE",  # whoever asks for more threads shares cores: waiting threads must not spin on them
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LOKY_MAX_CPU_COUNT": "1",
    "JOBLIB_MULTIPROCESSING": "0",  # else a forest's predict fails: joblib asks for semaphores
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # a process that forks runners has one thread
    "MALLOC_ARENA_MAX": "2",
    "ORT_DISABLE_TELEMETRY": "1",
    "TORCHINDUCTOR_CACHE_DIR": "/",  # torch.export makes this folder when it is imported; nothing is written there
}


class Zygote:
    """One warm process that forks runners for this one.

    Its first thread is the parent of its runners, which end when that thread ends; `warm_up` may be called by another.
    """

    def __init__(self, library_set: str, python: Path) -> None:
        self._library_set = library_set
        self._lock = threading.Lock()
        self._channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.libraries: dict[str, str] = {}
        self.used_at = time.monotonic()
        with other:
            arguments = [str(Path(__file__).parent.parent), library_set, str(other.fileno())]
            try:
                self.process = subprocess.Popen(
                    [python, "-I", "-B", "-c", BOOT, *arguments],
                    env=ENVIRONMENT,
                    cwd="/",
                    pass_fds=(other.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                self._channel.close()
                raise HostUnavailable(f"The library set {library_set!r} has no interpreter that starts.") from error

    def warm_up(self) -> None:
        """Wait until its libraries are imported; ends it when they cannot be.

        Raises:
            ArtifactRejected: one is missing. HostUnavailable: it does not start.
        """
        try:
            hello = self._receive(START_SECONDS)
        except HostUnavailable as error:
            self.close()
            raise HostUnavailable(f"The library set {self._library_set!r} does not start.") from error
        if "missing" in hello:
            self.close()
            raise ArtifactRejected("missing_library", f"This machine does not have the library {hello['missing']!r}.")
        if "broken" in hello:
            self.close()
            raise HostUnavailable(
                f"The library set {self._library_set!r} does not start ({plain(hello['broken'], 300)})."
            )
        self.libraries = hello["libraries"]

    def fork(self, order: Mapping[str, Any], fds: Mapping[str, int]) -> int:
        """The pid of a new runner with these descriptors; it is a child of this process.

        Raises:
            HostUnavailable: the zygote is gone.
        """
        message = msgpack.packb({**order, "fds": list(fds)})
        with self._lock:
            try:
                socket.send_fds(self._channel, [message], list(fds.values()))
            except OSError as error:
                raise HostUnavailable("A zygote ended; it is being restarted.") from error
            return int(self._receive(FORK_SECONDS)["pid"])

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def close(self) -> None:
        """End the process; its runners live on."""
        self._channel.close()
        self.process.kill()
        self.process.wait()

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        self._channel.settimeout(timeout_s)
        try:
            data = self._channel.recv(MESSAGE_BYTES)
        except OSError as error:
            raise HostUnavailable("A zygote does not answer.") from error
        if not data:
            raise HostUnavailable("A zygote ended; it is being restarted.")
        message: dict[str, Any] = msgpack.unpackb(data)
        return message


class Zygotes:
    """One zygote for each library set that was asked for.

    Every zygote is started by one thread that lives as long as the host: a runner's parent is that very thread, and
    the kernel ends the runner when its parent *thread* ends.
    """

    def __init__(self, declared: LibrarySets | None = None) -> None:
        self._declared = declared or LibrarySets(None)
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="zygote-starter")
        self._zygotes: dict[str, Zygote] = {}
        self._origins: dict[str, LibrarySet | None] = {}
        self._broken: dict[str, tuple[float, RuntimeFault]] = {}

    def get(self, library_set: str) -> Zygote:
        """The warm zygote of a library set; waits while it starts.

        Raises:
            ArtifactRejected: nobody declared such a set, or a library is missing. HostUnavailable: it does not start.
        """
        origin = self._origin(library_set)
        with self._locks[library_set]:  # a set that starts for seconds must not hold up another
            zygote = self._zygotes.get(library_set)
            if zygote is None or not zygote.is_alive() or self._origins[library_set] != origin:
                zygote = self._start(library_set, origin)
            zygote.used_at = time.monotonic()
        return zygote

    def fork(self, library_set: str, order: Mapping[str, Any], fds: Mapping[str, int]) -> int:
        """The pid of a new runner; a zygote that died is replaced once."""
        zygote = self.get(library_set)
        try:
            return zygote.fork(order, fds)
        except HostUnavailable:
            zygote.close()
            return self.get(library_set).fork(order, fds)

    def running(self) -> dict[str, Zygote]:
        """The zygotes that were started, by library set."""
        return dict(self._zygotes)

    def libraries(self) -> dict[str, Mapping[str, str]]:
        """The versions in every library set of this machine; of the platform's own, in those that were started."""
        own = {name: zygote.libraries for name, zygote in self.running().items() if name in BUILT_IN}
        return {**own, **{each.name: each.libraries for each in self._declared.all()}}

    def end_idle(self, idle_s: float) -> None:
        """End the zygotes of declared sets that nobody has needed for so long; their runners live on."""
        for name, zygote in self.running().items():
            if name in BUILT_IN or not self._locks[name].acquire(blocking=False):
                continue  # one that is being started is needed
            try:
                if time.monotonic() - zygote.used_at > idle_s:
                    self._zygotes.pop(name, zygote).close()
            finally:
                self._locks[name].release()

    def close(self) -> None:
        """End all zygotes."""
        for zygote in self.running().values():
            zygote.close()
        self._starter.shutdown(wait=False)

    def _origin(self, library_set: str) -> LibrarySet | None:
        """The declared set of this name; None for one of the platform's own."""
        if library_set in BUILT_IN:
            return None
        origin = self._declared.find(library_set)
        if origin is None:
            raise self._declared.unknown(library_set)
        return origin

    def _start(self, library_set: str, origin: LibrarySet | None) -> Zygote:
        """A new zygote in the place of the old one; one that failed a moment ago is not tried again yet."""
        failed_at, fault = self._broken.get(library_set, (-RETRY_SECONDS, None))
        if fault is not None and time.monotonic() - failed_at < RETRY_SECONDS:
            raise from_message(to_message(fault))
        python = Path(sys.executable) if origin is None else origin.python
        try:
            zygote = self._starter.submit(Zygote, library_set, python).result()
            zygote.warm_up()
        except RuntimeFault as error:
            self._broken[library_set] = time.monotonic(), error
            raise
        old = self._zygotes.get(library_set)
        self._zygotes[library_set], self._origins[library_set] = zygote, origin
        if old is not None:
            old.close()
        return zygote


def warm_up(library_set: str, python: Path) -> dict[str, str]:
    """The versions of what an interpreter holds for runners, found by starting a zygote of it and ending that.

    Raises:
        RuntimeFault: it does not start.
    """
    zygote = Zygote(library_set, python)
    zygote.warm_up()
    zygote.close()
    return zygote.libraries


def thread_count(uid: int) -> int:
    """How many threads a user runs on this machine, as of a few seconds ago; what may not be seen counts as none."""
    return _thread_count(uid, int(time.monotonic() // COUNT_SECONDS))


@functools.lru_cache(maxsize=1)
def _thread_count(uid: int, moment: int) -> int:
    count = 0
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and folder.stat().st_uid == uid:
                count += sum(1 for _ in (folder / "task").iterdir())
        except OSError:
            continue
    return count
