"""Having deleted versions leave this machine's memory."""

import logging
from collections.abc import Iterable

from django.conf import settings
from django.db import transaction

from runtimes.client import HostClient
from runtimes.errors import RuntimeFault

log = logging.getLogger(__name__)


def evict_once_committed(keys: Iterable[str]) -> None:
    """Have this machine's model host drop these pool keys after the transaction; other machines' hosts drop the least
    recently used ones anyway, and nobody can ask for a deleted version."""
    doomed = list(keys)
    if settings.MODELS_SOCKET and doomed:
        transaction.on_commit(lambda: _evict(doomed))


def _evict(keys: Iterable[str]) -> None:
    host = HostClient(settings.MODELS_SOCKET)
    try:
        for key in keys:
            host.evict(key)
    except (RuntimeFault, OSError):  # the version is deleted all the same
        log.warning("runner_not_evicted", exc_info=True)
