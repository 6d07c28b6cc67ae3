"""Where a process's replies arrive: one Valkey list, and one thread that empties it."""

import atexit
import logging
import threading
import time
import uuid
from collections.abc import Callable
from functools import cached_property
from typing import cast

import redis

from inference.queued.valkey import valkey
from inference.queued.wire import Reply

log = logging.getLogger(__name__)

BLOCK_S = 1.0
AT_ONCE = 64
PAUSE_AFTER_FAILURE_S = 0.2


class Inbox:
    """The list of this process. `take` is called with each reply, in the listener's thread."""

    def __init__(self, take: Callable[[Reply], None]) -> None:
        self.key = f"tenantry:replies:{uuid.uuid4().hex}"
        self._take = take
        self._lock = threading.Lock()
        self._heard_at = time.monotonic()
        self._is_deaf = False
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def deaf_s(self) -> float:
        """For how long Valkey could not be asked for replies."""
        return max(0.0, time.monotonic() - self._heard_at - BLOCK_S)

    def listen(self) -> None:
        """Start the listener, if it does not listen yet."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._heard_at = time.monotonic()
                atexit.register(self._is_over.set)  # Valkey may go before this process does
                self._thread = threading.Thread(target=self._listen, name="prediction-replies", daemon=True)
                self._thread.start()

    @cached_property
    def _client(self) -> redis.Redis:
        return valkey()

    def _listen(self) -> None:
        while not self._is_over.is_set():
            try:
                found = self._client.blmpop(BLOCK_S, 1, self.key, direction="LEFT", count=AT_ONCE)
            except (redis.RedisError, OSError) as error:
                self._pause(error)
                continue
            self._heard_at, self._is_deaf = time.monotonic(), False
            for packed in cast(list[bytes], found[1]) if found else ():
                self._open(packed)

    def _pause(self, error: Exception) -> None:
        if not self._is_deaf and not self._is_over.is_set():  # said once an outage
            log.warning("replies_not_heard", extra={"error": str(error)})
        self._is_deaf = True
        self._is_over.wait(PAUSE_AFTER_FAILURE_S)

    def _open(self, packed: bytes) -> None:
        try:
            self._take(Reply.unpack(packed))
        except Exception:  # one bad reply must not end the listener, on which every other one depends
            log.exception("reply_unreadable")
