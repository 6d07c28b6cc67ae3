"""One-way confinement of the calling process; it fails closed.

The layers, in order: closed descriptors, an unprivileged uid (under root), no new privileges, Landlock for files,
resource limits, seccomp for everything else, and a self-test that believes what happens and not return codes.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import mmap
import os
import resource
import secrets
import signal
import socket
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtimes import landlock, seccomp
from runtimes.errors import ConfinementUnavailable

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS = 1, 4, 8, 38
CAP_DAC_READ_SEARCH = 2
CAPABILITY_VERSION_3 = 0x20080522
OPEN_FILES = 128
THREADS_OF_A_SLOT = 64
THREADS_OF_A_SHARED_USER = 256
SYSTEM_READABLE = """
/lib /lib64 /usr/lib /usr/lib64 /usr/local/lib /usr/share/zoneinfo /etc/ld.so.cache /etc/localtime
/sys/devices/system/cpu /sys/devices/system/node /proc/cpuinfo /proc/meminfo /proc/stat /proc/sys/vm/overcommit_memory
/sys/kernel/mm/transparent_hugepage/enabled /dev/urandom
"""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Plan:
    """What the process keeps when it is confined.

    uid: the user to become when it is root. host_pid: the parent whose end is this process's end.
    memory_bytes: address space on top of what is mapped now. cpu_seconds: of the whole life, for one-shot work.
    threads: how many the process's user may have in all. keep_fds: descriptors above 2 that stay open.
    listener_fd: the one of them on which it may accept.
    """

    uid: int
    host_pid: int
    memory_bytes: int
    cpu_seconds: int | None
    threads: int
    keep_fds: tuple[int, ...]
    listener_fd: int | None


def confine(plan: Plan) -> None:
    """Give up every right but computing and using the kept descriptors; call it before reading any tenant's byte.

    Raises:
        ConfinementUnavailable: a layer does not hold; the process must not go on.
    """
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise ConfinementUnavailable("A process with threads cannot be confined.")
    isolate(plan)
    _control(PR_SET_DUMPABLE, 0)
    _control(PR_SET_NO_NEW_PRIVS, 1)
    landlock.restrict(readable_paths())
    seccomp.restrict(plan.listener_fd)
    prove_confined(plan.host_pid)


def isolate(plan: Plan) -> None:
    """Leave the host's descriptors, session, user and resources behind, and die with it; needs no kernel feature."""
    mapped_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _close_all_but(plan.keep_fds)
    os.chdir("/")
    os.setsid()
    _volunteer_for_oom()
    if os.getuid() == 0:
        _become(plan.uid)
    _control(PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which clears it
    if os.getppid() != plan.host_pid:
        raise ConfinementUnavailable("The model host ended while its runner started.")
    _limit_resources(plan, mapped_bytes)


@functools.cache
def readable_paths() -> tuple[Path, ...]:
    """The libraries of this interpreter and of the system; nothing of the project but this package."""
    interpreter = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages", "lib-dynload"))]
    return tuple(Path(path) for path in [*SYSTEM_READABLE.split(), *interpreter, *packages, str(Path(__file__).parent)])


def prove_confined(host_pid: int) -> None:
    """Try what must not work, and believe only what happens.

    Raises:
        ConfinementUnavailable: one of the attempts worked.
    """
    for name, attempt in _forbidden(host_pid).items():
        try:
            attempt()
        except PermissionError:
            continue
        except OSError as error:
            raise ConfinementUnavailable(f"The sandbox's self-test met an odd answer to '{name}': {error}.") from error
        raise ConfinementUnavailable(f"The sandbox does not stop '{name}' on this machine, so nothing is loaded.")


def _forbidden(host_pid: int) -> Mapping[str, Callable[[], object]]:
    name = secrets.token_hex(16)  # which is nobody's: a folder of that name would be refused for another reason
    return {
        "list the root folder": lambda: list(Path("/").iterdir()),
        "look at the host": lambda: os.open(f"/proc/{host_pid}/status", os.O_RDONLY),
        "write a file": lambda: os.open(f"/tmp/{name}", os.O_WRONLY | os.O_CREAT),  # noqa: S108 (it must fail)
        "write shared memory": lambda: os.open(f"/dev/shm/{name}", os.O_WRONLY | os.O_CREAT),  # noqa: S108
        "fork": lambda: os.fork() or os._exit(9),
        "open a socket": lambda: socket.socket(socket.AF_UNIX),
        "signal the host": lambda: os.kill(host_pid, 0),
        "own a signal": lambda: fcntl.fcntl(0, fcntl.F_SETOWN, host_pid),
        "share memory": lambda: mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS),
        "move the host": lambda: os.sched_setaffinity(host_pid, os.sched_getaffinity(0)),
    }


def _close_all_but(keep_fds: Iterable[int]) -> None:
    previous = 2
    for fd in [*sorted(keep_fds), 1 << 20]:
        os.closerange(previous + 1, fd)
        previous = fd


def _volunteer_for_oom() -> None:
    """Be the first process that the kernel ends when memory runs out; before the change of user, which closes /proc."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _become(uid: int) -> None:
    """Be an unprivileged user who can read the libraries, with one capability if there is no other way.

    The interpreter may live below a 0700 home. CAP_DAC_READ_SEARCH then lets the user in; Landlock still decides what
    it may read, and the calls that the capability opens besides (open_by_handle_at) kill.
    """
    try:
        _control(PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise ConfinementUnavailable("The model host is root without the right to become another user.") from error
    _keep_capabilities(0 if _can_read_libraries() else 1 << CAP_DAC_READ_SEARCH)
    if os.getuid() == 0 or not _can_read_libraries():
        raise ConfinementUnavailable(
            "The unprivileged user of a runner cannot read the interpreter's libraries; install them where all can."
        )


def _can_read_libraries() -> bool:
    folders = {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), str(Path(__file__).parent)}
    return all(os.access(folder, os.R_OK | os.X_OK, effective_ids=True) for folder in folders)


def _keep_capabilities(mask: int) -> None:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(mask, mask, 0, 0, 0, 0)  # effective, permitted, inheritable: low words, then high
    if _libc.syscall(seccomp.syscall_number("capset"), header, sets) != 0:
        raise ConfinementUnavailable(
            "The interpreter lies where only root can read it, and root may not pass on CAP_DAC_READ_SEARCH."
        )


def _limit_resources(plan: Plan, mapped_bytes: int) -> None:
    limits = {
        resource.RLIMIT_AS: mapped_bytes + plan.memory_bytes,
        resource.RLIMIT_NPROC: plan.threads,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for name, value in limits.items():
        hard = resource.getrlimit(name)[1]
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (bounded, bounded))
    if plan.cpu_seconds is not None:  # SIGXCPU tells the host why; who ignores it is killed a second later
        resource.setrlimit(resource.RLIMIT_CPU, (plan.cpu_seconds, plan.cpu_seconds + 1))


def _control(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise ConfinementUnavailable(f"prctl({option}) failed: {os.strerror(ctypes.get_errno())}.")
