"""Runs processes side by side: logs what they say, starts again what dies, stops all of them in order."""

import os
import selectors
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from types import FrameType

from tenantry.stack.errors import StackError
from tenantry.stack.log import Lines, Log
from tenantry.stack.process import Command, Process, spawn

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STEADY_AFTER_S = 30.0  # who has run this long begins anew with short pauses


class Stage(IntEnum):
    """The order in which processes are stopped: nothing loses what it still leans on."""

    WEB = 1
    WORKERS = 2
    MODEL_HOST = 3
    SERVERS = 4


STOP_GRACE_S = {Stage.WEB: 10.0, Stage.WORKERS: 15.0, Stage.MODEL_HOST: 5.0, Stage.SERVERS: 15.0}


class StopRequested(Exception):
    """Somebody wants the stack to stop: Ctrl-C, SIGTERM, or the end of the terminal."""


@dataclass
class Child:
    """A process that is to run until the stack stops.

    command: called before every start, so that it can clear what the last run left.
    """

    name: str
    command: Callable[[], Command]
    stage: Stage
    process: Process | None = None
    failures: int = 0
    due_at: float = 0.0

    def pause_s(self, ran_s: float) -> float:
        """How long to wait before the next start, after a run of `ran_s` seconds."""
        self.failures = 1 if ran_s > STEADY_AFTER_S else self.failures + 1
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (self.failures - 1))


class Supervisor:
    """The processes of one stack. Use as a context manager: leaving it stops them all.

    One thread, because a child dies with the thread that started it; everything happens inside `turn`.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._children: list[Child] = []
        self._selector = selectors.DefaultSelector()
        self._stop_signals = 0
        self._stopping = False

    def __enter__(self) -> "Supervisor":
        self._wakeup, writer = os.pipe()
        for end in (self._wakeup, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._request_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # to wake the selector
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._selector.close()

    def start(self, child: Child) -> None:
        """Keep this process running from now on."""
        self._children.append(child)
        self._launch(child)

    def run(self, name: str, *commands: Command, output: int | None = None) -> list[int]:
        """Run commands to their ends, side by side, and return their exit statuses, negative for a signal.

        output: the descriptor they write to; None sends their lines to the log.
        """
        processes = [self._spawn(name, command, output) for command in commands]
        try:
            self.wait(lambda: all(process.has_ended for process in processes))
        finally:
            for process in processes:
                process.stop(STOP_GRACE_S[Stage.WEB])
            self.turn(0)
        return [int(process.popen.returncode) for process in processes]

    def wait(self, condition: Callable[[], bool], *, limit_s: float = float("inf"), pause_s: float = 0.1) -> bool:
        """Let the processes run until the condition holds, or `limit_s` has passed, which returns False.

        Raises StopRequested.
        """
        deadline = time.monotonic() + limit_s
        while not condition():
            if self._stop_signals:
                raise StopRequested
            if time.monotonic() > deadline:
                return False
            self.turn(pause_s)
        return True

    def run_forever(self) -> None:
        """Let the processes run until a signal, which raises StopRequested."""
        self.wait(lambda: False, pause_s=60)

    def stop(self) -> None:
        """Stop the processes stage by stage. A second signal meanwhile kills them at once."""
        self._stopping = True
        signals = self._stop_signals
        for stage in Stage:
            members = [child.process for child in self._children if child.stage is stage and child.process]
            for process in members:
                process.signal(process.command.stop_signal)
            deadline = time.monotonic() + STOP_GRACE_S[stage]
            while not all(process.has_ended for process in members):
                if time.monotonic() > deadline or self._stop_signals > signals:
                    self._log.line("stack", f"{stage.name.lower()}: not every process has ended, killing them")
                    break
                self.turn(0.1)
            for process in members:
                process.kill_group()
        self.turn(0)

    def turn(self, limit_s: float) -> None:
        """Handle what has happened, waiting at most `limit_s` seconds for something to happen."""
        due = [child.due_at for child in self._children if child.process is None]
        pause_s = min([limit_s, *(max(0.0, at - time.monotonic()) for at in due)] if not self._stopping else [limit_s])
        for key, _ in self._selector.select(pause_s):
            self._read(key.fd, key.data)
        for child in self._children:
            self._look_after(child)

    def _look_after(self, child: Child) -> None:
        if child.process is not None and child.process.has_ended:
            process, child.process = child.process, None
            process.kill_group()
            if self._stopping:
                return
            pause_s = child.pause_s(time.monotonic() - process.started_at)
            child.due_at = time.monotonic() + pause_s
            self._log.line("stack", f"{child.name} {_end_of(process)}; starting it again in {pause_s:g} s")
        elif child.process is None and not self._stopping and time.monotonic() >= child.due_at:
            self._launch(child)

    def _launch(self, child: Child) -> None:
        try:
            child.process = self._spawn(child.name, child.command(), None)
        except (OSError, StackError) as error:
            pause_s = child.pause_s(0)
            child.due_at = time.monotonic() + pause_s
            self._log.line("stack", f"{child.name} cannot be started: {error}; trying again in {pause_s:g} s")

    def _spawn(self, name: str, command: Command, output: int | None) -> Process:
        if output is not None:
            return spawn(command, output)
        reader, writer = os.pipe()
        try:
            process = spawn(command, writer)
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        os.set_blocking(reader, False)
        self._selector.register(reader, selectors.EVENT_READ, Lines(self._log, name))
        return process

    def _read(self, descriptor: int, lines: Lines | None) -> None:
        data = b""
        with suppress(BlockingIOError):
            data = os.read(descriptor, 65_536)
            if not data and lines:
                lines.close()
                self._selector.unregister(descriptor)
                os.close(descriptor)
        if lines:
            lines.feed(data)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop_signals += 1


def _end_of(process: Process) -> str:
    status = process.popen.returncode
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
