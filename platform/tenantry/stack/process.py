"""Starting and stopping child processes that never outlive this one."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tenantry.stack.account import Account

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)  # loaded before any fork: a child must not import


@dataclass(frozen=True)
class Command:
    """A program to run, as whom, and how it wishes to die.

    stdin: what it reads; empty means /dev/null.
    death_signal: what the kernel sends it when this process dies.
    """

    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str]
    account: Account | None = None
    stdin: bytes = b""
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL


@dataclass
class Process:
    """A running command, leader of a process group of its own."""

    command: Command
    popen: "subprocess.Popen[bytes]"
    started_at: float = field(default_factory=time.monotonic)

    @property
    def has_ended(self) -> bool:
        return self.popen.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        """Signal the leader alone: Celery and granian pass on to their children what these should get."""
        if not self.has_ended:
            self.popen.send_signal(number)

    def kill_group(self) -> None:
        """Kill whatever is left of the process and its group."""
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)

    def stop(self, grace_s: float) -> None:
        """Ask it to end, and kill it when it has not after `grace_s` seconds."""
        self.signal(self.command.stop_signal)
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(grace_s)
        self.kill_group()
        self.popen.wait()


def spawn(command: Command, output: int) -> Process:
    """Start the command with stdout and stderr on the descriptor `output`.

    Call it from the main thread: the kernel sends the death signal when the *thread* that started the child ends.
    """
    popen = subprocess.Popen(
        command.argv,
        cwd=command.cwd,
        env=dict(command.environment),
        stdin=subprocess.PIPE if command.stdin else subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        process_group=0,
        preexec_fn=die_with_parent(command.death_signal),
        **(command.account.identity if command.account else {}),
    )
    if popen.stdin:
        with suppress(BrokenPipeError), popen.stdin:
            popen.stdin.write(command.stdin)
    return Process(command, popen)


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """What a child calls before exec, so that the kernel ends it when its parent ends, kill -9 included.

    subprocess runs it after the change of user, which would undo it.
    """
    parent = os.getpid()
    return lambda: tie_to(parent, number)


def tie_to(parent: int, number: signal.Signals) -> None:
    """Have the kernel send this process a signal when `parent`, which must be its parent, ends."""
    _libc.prctl(PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:  # it died before the kernel was told
        os._exit(1)
