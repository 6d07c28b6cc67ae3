"""What leaves a process for the queue: requests for one version that come while a message of it is away leave together.

    arrives ──> waits in its version's line ──> leaves in a message ──> answered
                                                   └── silence: sent again, twice at most

Predictions change nothing, so a message may be sent again: a worker that was killed, or a broker that lost it, costs a
few seconds. Threads that wait do all of this themselves; the listener only delivers replies.
"""

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from celery import current_app
from kombu.exceptions import OperationalError as BrokerError

from common.errors import PlatformError, TimedOut, Unavailable
from inference.queued import wire
from inference.queued.inbox import Inbox
from inference.queued.queues import QUEUED_TASK
from inference.queued.wire import Message, Reply, Request
from runtimes.protocol import Prediction

log = logging.getLogger(__name__)

CLOCK_SKEW_S = 5.0  # how far the clocks of two machines may be apart
HOLD_S = 0.05  # a line does not wait longer than this for the message before it
MOST_AWAY = 8  # messages of one version that one process has away at once
MOST_TOGETHER, MOST_BYTES_TOGETHER = 64, 1 << 20
SILENCE_S = 2.0  # without a sign of life of a worker, after which a message is sent again
MOST_SENDS = 3
DEAF_S = 4.0  # without Valkey, after which nobody waits for a reply any more
LOOK_S = 0.5
ONCE_MORE = {"max_retries": 1, "interval_start": 0.0, "interval_step": 0.0, "interval_max": 0.0}


@dataclass(frozen=True)
class Destination:
    """Where requests for one version go. tenant: its uuid."""

    tenant: str
    version_id: str
    pool_key: str
    queue: str


@dataclass(eq=False)
class Waiting:
    """A request whose thread waits for its answer. answer: as it came, still packed."""

    request: Request
    news: threading.Event = field(default_factory=threading.Event)
    parcel: "Parcel | None" = None
    answer: Any = None
    fault: PlatformError | None = None
    took_s: float = 0.0

    @property
    def is_answered(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.answer is not None or self.fault is not None


@dataclass(eq=False)
class Parcel:
    """A message that is away, and who waits for it. heard_at: when it was sent, or last known to be in hand."""

    message_id: str
    to: Destination
    waiting: Sequence[Waiting]
    heard_at: float
    sends: int = 1

    def is_lost(self, now: float) -> bool:
        """Whether it is silent for so long that it is worth sending again."""
        return self.sends < MOST_SENDS and now - self.heard_at > SILENCE_S * self.sends


@dataclass(eq=False)
class Line:
    """The requests for one version that have not left yet, and how many messages are away."""

    waiting: deque[Waiting] = field(default_factory=deque)
    away: int = 0
    left_at: float = 0.0

    def may_leave(self, now: float) -> bool:
        """Whether those who wait may leave now."""
        if not self.waiting or self.away >= MOST_AWAY:
            return False
        return self.away == 0 or now - self.left_at >= HOLD_S

    def take(self) -> list[Waiting]:
        """Those who leave together: the first one, and more as long as their message stays small."""
        taken = [self.waiting.popleft()]
        size = len(taken[0].request.body)
        while self.waiting and len(taken) < MOST_TOGETHER:
            size += len(self.waiting[0].request.body)
            if size > MOST_BYTES_TOGETHER:
                break
            taken.append(self.waiting.popleft())
        return taken


class Outbox:
    """This process's end of the queue lane, for all its threads."""

    def __init__(self) -> None:
        self._inbox = Inbox(self._deliver)
        self._lock = threading.Lock()
        self._lines: dict[Destination, Line] = {}
        self._away: dict[str, Parcel] = {}

    def ask(self, to: Destination, request: Request, deadline: float) -> tuple[Prediction, float]:
        """The prediction of a worker, and the seconds that it took there.

        deadline: on `time.monotonic()`'s clock.

        Raises:
            TimedOut: no worker answered in time. Unavailable: the queue cannot be reached.
            PlatformError: the worker's own.
        """
        self._inbox.listen()
        one = Waiting(request)
        with self._lock:
            self._lines.setdefault(to, Line()).waiting.append(one)
        try:
            while not one.is_answered:
                self._act(to, one)
                self._sleep(one, deadline)
        finally:
            self._withdraw(to, one)
        if one.fault:
            raise one.fault
        return wire.opened(one.answer, request), one.took_s

    def _act(self, to: Destination, one: Waiting) -> None:
        """Send what is to be sent now: the line that this one waits in, or its message once more."""
        now = time.monotonic()
        with self._lock:
            parcel = self._leave(to, now) if one.parcel is None else self._repeat(one.parcel, now)
        if parcel is not None:
            self._send(parcel)
        if self._inbox.deaf_s > DEAF_S:
            one.fault = one.fault or _unreachable()

    def _sleep(self, one: Waiting, deadline: float) -> None:
        left_s = deadline - time.monotonic()
        if one.is_answered:
            return
        if left_s <= 0:
            raise TimedOut("No worker answered before the deadline.")
        one.news.wait(min(left_s, HOLD_S if one.parcel is None else LOOK_S))
        one.news.clear()

    def _leave(self, to: Destination, now: float) -> Parcel | None:
        line = self._lines[to]
        if not line.may_leave(now):
            return None
        parcel = Parcel(uuid.uuid4().hex, to, line.take(), now)
        line.away, line.left_at = line.away + 1, now
        self._away[parcel.message_id] = parcel
        for one in parcel.waiting:
            one.parcel = parcel
        return parcel

    def _repeat(self, parcel: Parcel, now: float) -> Parcel | None:
        if parcel.message_id not in self._away or not parcel.is_lost(now):
            return None
        parcel.sends, parcel.heard_at = parcel.sends + 1, now
        log.warning("prediction_sent_again", extra={"message_id": parcel.message_id, "queue": parcel.to.queue})
        return parcel

    def _send(self, parcel: Parcel) -> None:
        """Hand the message to the broker; if that fails, all who wait for it hear it."""
        requests = [one.request for one in parcel.waiting if not one.is_answered]
        message = Message(
            tenant=parcel.to.tenant,
            version_id=parcel.to.version_id,
            pool_key=parcel.to.pool_key,
            message_id=parcel.message_id,
            reply_to=self._inbox.key,
            sent_at=time.time(),
            sends=parcel.sends,
            requests=[one.request for one in parcel.waiting],
        )
        lives_s = max((request.answer_before for request in requests), default=0.0) - time.time() + CLOCK_SKEW_S
        try:
            _publish(message, parcel.to.queue, max(lives_s, 1.0))
        except Exception as error:
            if not isinstance(error, BrokerError | OSError):
                log.exception("prediction_not_sent")
            self._give_up(parcel, _unreachable())

    def _deliver(self, reply: Reply) -> None:
        """Give each who waits for a message their answer, and let the next in line leave."""
        with self._lock:
            parcel = self._away.get(reply.message_id)
            if parcel is None:  # answered before, by a worker that it was sent to again
                return
            parcel.heard_at = time.monotonic()
            if reply.answers is None:
                return
            self._settle(parcel)
        for one, answer in zip(parcel.waiting, reply.answers, strict=True):
            one.took_s, one.answer = reply.took_s, answer
            one.news.set()

    def _give_up(self, parcel: Parcel, fault: PlatformError) -> None:
        with self._lock:
            self._settle(parcel)
        for one in parcel.waiting:
            one.fault = fault
            one.news.set()

    def _settle(self, parcel: Parcel) -> None:
        """Nothing more is expected of this message; wake the first in line, which sends for all of them."""
        if self._away.pop(parcel.message_id, None) is None:
            return
        line = self._lines[parcel.to]
        line.away -= 1
        if line.waiting:
            line.waiting[0].news.set()
        elif not line.away:
            self._lines.pop(parcel.to)

    def _withdraw(self, to: Destination, one: Waiting) -> None:
        """Leave nothing of this request behind, however it ended."""
        with self._lock:
            if one.parcel is None:
                self._lines[to].waiting.remove(one)
                if not self._lines[to].waiting and not self._lines[to].away:
                    self._lines.pop(to)
                return
            if not one.is_answered:
                one.fault = wire.expired()
                if all(other.is_answered for other in one.parcel.waiting):
                    self._settle(one.parcel)


def _publish(message: Message, queue: str, lives_s: float) -> None:
    current_app.send_task(
        QUEUED_TASK,
        kwargs=message.to_values(),
        task_id=message.message_id,
        queue=queue,
        serializer="msgpack",
        expires=lives_s,
        retry=True,  # a connection that the broker has closed since it was used last is opened again
        retry_policy=ONCE_MORE,
        ignore_result=True,
        argsrepr="",
        kwargsrepr="",  # else Celery writes out the rows, for logs that must not hold them
    )


def _unreachable() -> Unavailable:
    return Unavailable("The prediction queue cannot be reached; try again shortly.", retry_after_s=2)


@cache
def outbox() -> Outbox:
    """The process's outbox."""
    return Outbox()
