"""PostgreSQL connections between requests: fewer than a process has threads.

Threads are many, since what waits holds one, and most requests of a busy process are predictions, which ask PostgreSQL
nothing. A connection that each thread kept from the last request that did would sit there for nobody.
"""

import threading
import weakref
from typing import Any

from django.conf import settings
from django.core.signals import request_finished
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from tenants.scope import own

_lock = threading.Lock()
_known: weakref.WeakSet[BaseDatabaseWrapper] = weakref.WeakSet()


def begin() -> None:
    """Know of every connection that this process opens, and close what is too much after each request."""
    connection_created.connect(_note)
    request_finished.connect(close_surplus)


def close_surplus(**_: Any) -> None:
    """Close the calling thread's connection if the process has more open than a quarter of its web threads."""
    connection = own.connection
    if connection.connection is None or connection.in_atomic_block:
        return
    with _lock:  # until it is closed, so that of many that end at once not all are
        if sum(one.connection is not None for one in _known) > most_kept():
            connection.close()


def most_kept() -> int:
    """How many connections may be open between requests."""
    return max(4, settings.WEB_THREADS // 4)


def _note(connection: BaseDatabaseWrapper, **_: Any) -> None:
    with _lock:
        _known.add(connection)
