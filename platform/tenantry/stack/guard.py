"""A second pair of eyes on the supervisor, so that whoever of the two is killed, nothing of the stack is left.

The supervisor runs in a child of this process. Is the child killed, then its own children die of their death signal,
and their orphans become this process's, which kills them. Is this process killed, then the child gets SIGTERM and stops
the stack in order. The child has a process group of its own, so that one kill of a group takes only one of the two.
"""

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tenantry.stack.process import die_with_parent

PR_SET_CHILD_SUBREAPER = 36
ORPHANS_GRACE_S = 2.0  # for those that end by their death signal, PostgreSQL above all
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def guarded(work: Callable[[], int]) -> int:
    """Run `work` in a guarded child process and return its exit status; signals to stop are passed on to it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    tie = die_with_parent(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        tie()
        _work_and_exit(work)
    for number in SIGNALS:
        signal.signal(number, lambda *_: os.kill(child, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    status = _await(child)
    end_orphans()
    return status


def end_orphans() -> None:
    """Wait until no descendant is left, killing those that take their time."""
    deadline = time.monotonic() + ORPHANS_GRACE_S
    with suppress(ChildProcessError):
        while True:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            if time.monotonic() > deadline:
                for orphan in children_of(os.getpid()):
                    with suppress(ProcessLookupError):
                        os.kill(orphan, signal.SIGKILL)
            time.sleep(0.02)


def children_of(parent: int) -> list[int]:
    """The processes whose parent this is."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent:
                    found.append(int(entry.name))
    return found


def _work_and_exit(work: Callable[[], int]) -> None:
    status = 1
    # Of a background group, the terminal may otherwise stop the supervisor for writing to it.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(status)


def _await(child: int) -> int:
    """Reap orphans until the child ends, and return its exit status."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            break
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        print(f"The supervisor was killed by {signal.Signals(-code).name}; stopping the rest.", file=sys.stderr)  # noqa: T201
    return code if code >= 0 else 1
