"""Work that nobody waits for, in a thread of its own."""

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger(__name__)


class Background:
    """Does `work` soon after it was asked for, however often it was; what fails is tried again.

    after_s: how long it gathers what is to be done before it does it, and how long it waits after a failure.
    """

    def __init__(self, name: str, work: Callable[[], None], *, after_s: float) -> None:
        self._name, self._work, self._after_s = name, work, after_s
        self._lock = threading.Lock()
        self._asked = threading.Event()
        self._pid = 0

    def ask(self) -> None:
        """Have it done; returns at once."""
        if self._pid != os.getpid():  # threads do not survive a fork
            self._start()
        self._asked.set()

    def _start(self) -> None:
        with self._lock:
            if self._pid != os.getpid():
                self._asked = threading.Event()
                threading.Thread(target=self._run, args=(self._asked,), name=self._name, daemon=True).start()
                atexit.register(self._finish, os.getpid())
                self._pid = os.getpid()

    def _run(self, asked: threading.Event) -> None:
        is_failing = False
        while asked.wait() and self._pid:
            time.sleep(self._after_s)
            asked.clear()
            try:
                self._work()
                is_failing = False
            except Exception:  # whatever it was, the next try may have better luck
                if not is_failing and self._pid:
                    log.warning("background_work_failed", extra={"work": self._name}, exc_info=True)
                is_failing = True
                asked.set()

    def _finish(self, pid: int) -> None:
        """Do what is left before the process ends."""
        if pid == os.getpid() and self._asked.is_set():
            with suppress(Exception):
                self._work()
        self._pid = 0
