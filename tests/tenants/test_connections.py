"""Between requests a process keeps fewer connections than it has threads."""

import threading
from typing import Any

from django.core.signals import request_finished
from django.db import connection

from tenants import connections
from tenants.models import Tenant


def test_connections_beyond_a_quarter_of_the_threads_are_closed_after_their_requests(
    committed_tenant: Any, settings: Any
) -> None:
    settings.WEB_THREADS = 64
    of_others = sum(one.connection is not None for one in connections._known)
    together, kept = threading.Barrier(20), []

    def answer() -> None:
        together.wait(30)
        Tenant.objects.filter(pk=committed_tenant.pk).exists()
        together.wait(30)  # each has one now
        request_finished.send(sender=None)
        together.wait(30)
        kept.append(connection.connection is not None)
        together.wait(30)
        connection.close()

    threads = [threading.Thread(target=answer) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(kept) == connections.most_kept() - of_others
