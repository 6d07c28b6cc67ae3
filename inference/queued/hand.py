"""The messages that this worker has in hand: told to those who wait, and claimed, so that nobody works on one twice.

Only what takes long costs anything: a message that is answered within a second is neither claimed nor spoken of.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from inference.queued import wire
from inference.queued.valkey import valkey
from inference.queued.wire import Message

log = logging.getLogger(__name__)

BEAT_S = 0.5
YOUNG_S = 1.0  # a message that is younger was sent once only
CLAIM_MS = 3_000  # renewed by each beat
DONE_MS = 60_000
REPLY_KEPT_S = 60


class Hand:
    """What is in hand, and the thread that says so while anything is for longer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, Message] = {}
        self._thread: threading.Thread | None = None
        self._has_some = threading.Event()

    @contextmanager
    def holding(self, message: Message) -> Iterator[bool]:
        """Hold a message during the block, and say whether it is this worker's to work on."""
        if is_late(message) and not _claim(message):
            yield False
            return
        self._take(message)
        try:
            yield True
        finally:
            with self._lock:
                self._held.pop(message.message_id, None)
            if is_late(message):
                _note_done(message)

    def _take(self, message: Message) -> None:
        with self._lock:
            self._held[message.message_id] = message
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="messages-in-hand", daemon=True)
                self._thread.start()
        if not self._has_some.is_set():
            self._has_some.set()

    def _beat(self) -> None:
        while True:
            self._has_some.wait()
            time.sleep(BEAT_S)
            with self._lock:
                held = list(self._held.values())
                if not held:
                    self._has_some.clear()
            slow = [message for message in held if time.time() - message.sent_at >= BEAT_S]
            if slow:
                _say_in_hand(slow)


def is_late(message: Message) -> bool:
    """Whether there may be another copy of the message by now."""
    return message.sends > 1 or time.time() - message.sent_at >= YOUNG_S


def reply(message: Message, packed: bytes) -> None:
    """Put a reply on the list of the process that waits for it."""
    with valkey().pipeline(transaction=False) as pipeline:
        pipeline.rpush(message.reply_to, packed)
        pipeline.expire(message.reply_to, REPLY_KEPT_S)
        pipeline.execute()


def _claim(message: Message) -> bool:
    return bool(valkey().set(_claim_key(message), "in hand", nx=True, px=CLAIM_MS))


def _note_done(message: Message) -> None:
    try:
        valkey().set(_claim_key(message), "done", px=DONE_MS)
    except redis.RedisError:
        log.warning("claim_not_kept", exc_info=True)


def _say_in_hand(messages: list[Message]) -> None:
    try:
        with valkey().pipeline(transaction=False) as pipeline:
            for message in messages:
                pipeline.set(_claim_key(message), "in hand", px=CLAIM_MS)
                pipeline.rpush(message.reply_to, wire.pack_sign_of_life(message.message_id))
                pipeline.expire(message.reply_to, REPLY_KEPT_S)
            pipeline.execute()
    except redis.RedisError:
        log.warning("in_hand_not_told", exc_info=True)


def _claim_key(message: Message) -> str:
    return f"tenantry:{message.tenant}:message:{message.message_id}"
