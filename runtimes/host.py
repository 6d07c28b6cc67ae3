"""The model host: owns the machine's pool of confined runners and hands clients the way to them.

Run as `python -m runtimes.host --socket PATH`. It holds no credentials, reads no artifact and no prediction: bundles
come as descriptors and go on to runners, and clients talk to runners directly.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from runtimes import addresses
from runtimes.limits import GIB
from runtimes.machine import WARM_LIBRARY_SETS, Machine, Settings
from runtimes.sessions import Session

MAX_COPIES = 4
log = logging.getLogger("runtimes.host")


class AlreadyRunning(Exception):
    """Another model host listens at the same socket."""


class Host:
    """The listening socket, a thread for each client, and one that watches the runners."""

    def __init__(self, socket_path: Path, machine: Machine, warm: Sequence[str]) -> None:
        self._path, self._machine, self._warm = socket_path, machine, warm
        self._listener = addresses.listen(socket_path)

    def run(self) -> None:
        """Serve clients until the process is told to end."""
        _start_thread(self._machine.watch, "watch")
        for library_set in self._warm:
            _start_thread(partial(self._machine.warm_up, library_set), "warm-up")
        arrivals = select.poll()
        for arriving in (self._listener.fileno(), _signals()):
            arrivals.register(arriving, select.POLLIN)
        while True:
            for ready, _ in arrivals.poll():
                if ready == self._listener.fileno():
                    client, _ = self._listener.accept()
                    _start_thread(Session(self._machine, client).run, "session")

    def close(self) -> None:
        """Stop listening and end every runner."""
        self._path.unlink(missing_ok=True)
        self._listener.close()
        self._machine.close()


def prepare(socket_path: Path) -> tuple[Path, int]:
    """The private folder for the runners' sockets and a lock that the process keeps; leftovers of a dead host are gone.

    Raises:
        AlreadyRunning: a live host holds the lock.
    """
    socket_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock_fd = os.open(f"{socket_path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise AlreadyRunning(f"A model host already listens at {socket_path}.") from error
    folder = Path(f"{socket_path}.d")
    folder.mkdir(mode=0o700, exist_ok=True)
    for leftover in [socket_path, *folder.glob("*.sock")]:
        leftover.unlink(missing_ok=True)
    return folder, lock_fd


def _start_thread(work: object, name: str) -> None:
    threading.Thread(target=work, name=name, daemon=True).start()  # type: ignore[arg-type]


def _signals() -> int:
    """A descriptor that can be read after a signal, so that one is not missed which arrives while this thread is about
    to wait, or in another one."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _cores() -> int:
    return min(MAX_COPIES, len(os.sched_getaffinity(0)))


def _allow_open_files() -> None:
    """Take as many descriptors as may be had: a runner costs three."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's settings."""
    parser = argparse.ArgumentParser(
        prog="python -m runtimes.host", description="Serve confined models to this machine."
    )
    parser.add_argument(
        "--socket", type=Path, required=True, help="where clients connect; its folder should be private"
    )
    parser.add_argument("--memory-bytes", type=int, default=4 * GIB, help="the pool's bound, in measured private bytes")
    parser.add_argument("--tenant-share", type=float, default=0.5, help="the part of it that one tenant may hold")
    parser.add_argument(
        "--library-sets", type=Path, help="the folder of the declared library sets (python -m runtimes.library_sets)"
    )
    parser.add_argument(
        "--warm",
        nargs="*",
        default=WARM_LIBRARY_SETS,
        metavar="NAME",
        help="the library sets to start at once; others start when they are needed (default: sklearn onnx)",
    )
    parser.add_argument("--max-runners", type=int, default=1000, help="how many runners there may be")
    parser.add_argument("--max-copies", type=int, default=_cores(), help="how many of them one busy version may have")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the model host until SIGTERM or SIGINT; 0 when it was told to end."""
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    os.umask(0o077)
    _allow_open_files()
    try:
        folder, _ = prepare(options.socket.absolute())
    except AlreadyRunning as error:
        log.error("%s", error)
        return 1
    settings = Settings(
        folder,
        options.memory_bytes,
        int(options.memory_bytes * options.tenant_share),
        options.max_runners,
        options.library_sets,
        options.max_copies,
    )
    host = Host(options.socket.absolute(), Machine(settings), options.warm)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    log.info("listening socket=%s memory_bytes=%d", options.socket, options.memory_bytes)
    try:
        host.run()
    finally:
        host.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
