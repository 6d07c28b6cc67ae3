"""Starting model hosts: as the user who runs the tests, and as an ordinary user without any capability."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runtimes.client import HostClient
from runtimes.errors import HostUnavailable

ROOT = Path(__file__).parents[2]
NOBODY = 65_534
START_SECONDS = 30.0


def command(socket_path: Path, *arguments: str) -> list[str]:
    """The command line of a model host. Most tests need scikit-learn; other libraries start when one needs them."""
    return [sys.executable, "-m", "runtimes.host", "--socket", str(socket_path), "--warm", "sklearn", *arguments]


def start(folder: Path, *arguments: str) -> tuple[subprocess.Popen[bytes], HostClient]:
    """A running model host and a client of it."""
    path = folder / "models.sock"
    process = subprocess.Popen(command(path, *arguments), cwd=ROOT)
    wait_for(path, process)
    return process, HostClient(f"unix:{path}")


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the host listens."""
    deadline = time.monotonic() + START_SECONDS
    while not _answers(path):
        assert process.poll() is None, "the model host ended"
        assert time.monotonic() < deadline, "the model host does not listen"
        time.sleep(0.02)


def _answers(path: Path) -> bool:
    try:
        HostClient(str(path)).stats()
    except HostUnavailable:
        return False
    return True


@contextmanager
def ended(started: tuple[subprocess.Popen[bytes], HostClient]) -> Iterator[HostClient]:
    """The client of a host that is ended after the block, however the block ends."""
    process, client = started
    try:
        yield client
    finally:
        process.terminate()
        process.wait(20)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a host as its supervisor does."""
    process.terminate()
    assert process.wait(20) == 0


def start_in_the_open(
    folder: Path, *arguments: str, as_root: bool = False
) -> tuple[subprocess.Popen[bytes], HostClient]:
    """A host whose interpreter and packages everybody may read, of an unprivileged user with no capability or of root.

    Where they lie below a folder that is closed to others (root's home), the host sees the same paths through a mount
    namespace in which the folders above are open; nothing of the machine is changed.
    """
    if not as_root:
        os.chown(folder, NOBODY, NOBODY)
    user = "" if as_root else f"--reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=-all --bounding-set=-all"
    path = folder / "models.sock"
    line = shlex.join(command(path, *arguments))
    script = f"{_mounts(folder)}\ncd /\nexec setpriv {user} env PYTHONPATH={ROOT} {line}"
    process = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-ec", script])
    wait_for(path, process)
    return process, HostClient(f"unix:{path}")


def _mounts(folder: Path) -> str:
    """The shell lines that open the way to the interpreter and the package for everybody, in this namespace alone."""
    leaves = {Path(sys.base_prefix), Path(sys.prefix), ROOT / "runtimes"}
    closed = {blocked for leaf in leaves if (blocked := _closed_above(leaf)) is not None}
    wanted = {leaf: folder / f"leaf{number}" for number, leaf in enumerate(sorted(leaves)) if _closed_above(leaf)}
    keep = [f"mkdir -p {aside} && mount --bind {leaf} {aside}" for leaf, aside in wanted.items()]
    cover = [f"mount -t tmpfs -o mode=755 tmpfs {blocked}" for blocked in sorted(closed)]
    back = [f"mkdir -p {leaf} && mount --bind {aside} {leaf}" for leaf, aside in wanted.items()]
    return "\n".join([*keep, *cover, *back])


def _closed_above(leaf: Path) -> Path | None:
    """The topmost folder above that others may not pass through."""
    return next((parent for parent in reversed(leaf.parents) if not parent.stat().st_mode & 0o001), None)


def can_open_namespaces() -> bool:
    """Whether the second kind of host can be started here."""
    if os.getuid() != 0:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def state_of(pid: int) -> str:
    """The letter of a process's state: `R` runs, `S` sleeps, `T` is stopped."""
    return Path(f"/proc/{pid}/status").read_text().split("State:\t")[1][0]


def eventually(claim: Callable[[], object], seconds: float = 5.0) -> bool:
    """Whether the claim, a function, becomes true within the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if claim():
            return True
        time.sleep(0.02)
    return False
