"""Hearing of changes, and knowing until when nothing was missed."""

import atexit
import logging
import os
import select
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import psycopg2
import psycopg2.extensions as driver
from django.db import DEFAULT_DB_ALIAS, connections

from tenants.scope import own

log = logging.getLogger(__name__)

CHANNEL = "tenantry_changed"
APPLICATION = "tenantry tables"  # what pg_stat_activity calls the connection
RENEW_EVERY_S = 0.3
LEASE_S = 0.8  # with what a busy machine takes to hear and to answer, a change shows within a second
ANSWER_WITHIN_S = 3.0  # after which the connection counts as broken
RECONNECT_EVERY_S = 0.5


class Subscriber(Protocol):
    """What forgets when it is told to."""

    def forget(self, tag: str) -> None: ...
    def forget_all(self) -> None: ...
    def begin_in_fork(self) -> None: ...


def _as_django_connects() -> Mapping[str, Any]:
    parameters: Mapping[str, Any] = connections[DEFAULT_DB_ALIAS].get_connection_params()
    return parameters


class Listener:
    """The process's ear: one thread with one connection, begun by who first asks whether it can be believed.

    parameters: of its connection, as psycopg2 takes them.
    """

    def __init__(self, parameters: Callable[[], Mapping[str, Any]] = _as_django_connects) -> None:
        self._parameters = parameters
        self._subscribers: defaultdict[str, list[Subscriber]] = defaultdict(list)
        self._abandoned: list[object] = []
        self._connection: Any = None
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._believable_until = 0.0
        self._is_heard = True  # whether the log has not yet been told of an outage
        self._is_over = False

    def subscribe(self, kind: str, subscriber: Subscriber) -> None:
        """Tell the subscriber of every change of this kind."""
        self._subscribers[kind].append(subscriber)

    def is_believable(self) -> bool:
        """Whether every change was heard that was committed longer than `LEASE_S` ago, and this thread is in no
        transaction, which sees changes that nobody has heard of."""
        if time.monotonic() < self._believable_until:
            return not own.connection.in_atomic_block
        self._ensure_started()
        return False

    def begin_in_fork(self) -> None:
        """Start anew in a forked child. The parent goes on using its connection: to close it here would end it."""
        self._abandoned.append(self._connection)
        self._begin()
        for subscriber in self._each():
            subscriber.begin_in_fork()

    def stop(self) -> None:
        """Hear nothing more, for good; the thread ends with its next round trip."""
        self._is_over = True
        self._believable_until = 0.0

    def _ensure_started(self) -> None:
        with self._lock:
            if not self._is_over and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="tables", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._is_over:
            try:
                with _connected(self._parameters()) as self._connection:
                    self._listen(self._connection)
            except Exception as error:  # whatever it is, nothing is heard until the next try
                self._believable_until = 0.0
                if self._is_heard and not self._is_over:
                    log.warning("changes_not_heard", extra={"reason": str(error).strip()})
                self._is_heard = False
            time.sleep(RECONNECT_EVERY_S)

    def _listen(self, connection: Any) -> None:
        """Hear changes until the connection breaks. What was remembered before may have changed unheard."""
        asked_at = time.monotonic()
        _ask(connection, f"LISTEN {CHANNEL}")
        for subscriber in self._each():
            subscriber.forget_all()
        if not self._is_heard:
            log.info("changes_heard_again")
        self._is_heard = True
        while not self._is_over:
            self._believable_until = asked_at + LEASE_S
            self._hear_until(connection, asked_at + RENEW_EVERY_S)
            asked_at = time.monotonic()
            _ask(connection, "SELECT 1")
            self._tell(connection)

    def _hear_until(self, connection: Any, end: float) -> None:
        while (left_s := end - time.monotonic()) > 0:
            if _is_ready(connection, select.POLLIN, left_s):
                connection.poll()
                self._tell(connection)

    def _tell(self, connection: Any) -> None:
        while connection.notifies:
            kind, _, tag = connection.notifies.pop(0).payload.partition(" ")
            for subscriber in self._subscribers.get(kind, ()):
                subscriber.forget(tag)

    def _each(self) -> Iterator[Subscriber]:
        for subscribers in self._subscribers.values():
            yield from subscribers


@contextmanager
def _connected(parameters: Mapping[str, Any]) -> Iterator[Any]:
    """A connection that never waits by itself: what a dead network would hold up has a limit."""
    connection = psycopg2.connect(**{**parameters, "application_name": APPLICATION}, async_=True)
    try:
        _await(connection)
        yield connection
    finally:
        connection.close()


def _ask(connection: Any, statement: str) -> None:
    """Have PostgreSQL answer a statement; what it notified us of before then is in `connection.notifies`."""
    cursor = connection.cursor()  # which has to live as long as its answer is awaited
    cursor.execute(statement)
    _await(connection)


def _await(connection: Any) -> None:
    end = time.monotonic() + ANSWER_WITHIN_S
    while (state := connection.poll()) != driver.POLL_OK:
        event = select.POLLIN if state == driver.POLL_READ else select.POLLOUT
        left_s = end - time.monotonic()
        if left_s <= 0 or not _is_ready(connection, event, left_s):
            raise TimeoutError(f"PostgreSQL did not answer within {ANSWER_WITHIN_S:.0f} s")


def _is_ready(connection: Any, event: int, within_s: float) -> bool:
    waiting = select.poll()  # unlike select(), of any descriptor: a web process may have thousands open
    waiting.register(connection, event)
    return bool(waiting.poll(within_s * 1000))


listener = Listener()
atexit.register(listener.stop)
os.register_at_fork(after_in_child=listener.begin_in_fork)
