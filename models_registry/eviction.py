"""Having versions leave this machine's memory, or stay in it."""

import logging
from collections.abc import Callable, Iterable

from django.conf import settings
from django.db import transaction

from runtimes.client import HostClient
from runtimes.errors import RuntimeFault

log = logging.getLogger(__name__)


def evict_once_committed(keys: Iterable[str]) -> None:
    """Have this machine's model host drop these pool keys after the transaction; other machines' hosts drop the least
    recently used ones anyway, and nobody can ask for a deleted version."""
    _once_committed(HostClient.evict, keys)


def end_once_committed(keys: Iterable[str]) -> None:
    """Have this machine's model host load these pool keys anew when they are next asked for, after the transaction.

    What is in flight is answered.
    """
    _once_committed(HostClient.drain, keys)


def pin_once_committed(kept: Iterable[str], let_go: Iterable[str]) -> None:
    """Have this machine's model host keep these pool keys, whatever else needs room, and those no longer."""
    _once_committed(HostClient.pin, kept)
    _once_committed(lambda host, key: host.pin(key, pinned=False), let_go)


def _once_committed(tell: Callable[[HostClient, str], object], keys: Iterable[str]) -> None:
    told = list(keys)
    if settings.MODELS_SOCKET and told:
        transaction.on_commit(lambda: _tell(tell, told))


def _tell(tell: Callable[[HostClient, str], object], keys: Iterable[str]) -> None:
    host = HostClient(settings.MODELS_SOCKET)
    try:
        for key in keys:
            tell(host, key)
    except (RuntimeFault, OSError):  # what was committed stands all the same
        log.warning("model_host_not_told", exc_info=True)
