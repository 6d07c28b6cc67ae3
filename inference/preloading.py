"""Having the pinned versions in memory after each start of this machine's model host, before the machine is ready.

The model host has no credentials, so one of its clients sees to it: one thread of each web process and of each worker
that predicts waits for a host, and the first of them has the duty (`runtimes.readiness`).
"""

import logging
import threading
import time
from collections.abc import Iterator

from django.conf import settings
from django.db import connections

from common.errors import PlatformError
from models_registry.history import routing_of
from models_registry.loading import load_request, pool_key
from models_registry.models import Deployment, ModelVersion
from runtimes.client import HostClient
from runtimes.errors import HostUnavailable, RuntimeFault
from tenants.models import Tenant, TenantState
from tenants.scope import tenant_scope

log = logging.getLogger(__name__)

PRELOAD_SECONDS = 300.0  # then the machine is ready without the rest: serving late is better than never
LOAD_SECONDS = 60.0
AGAIN_SECONDS = 0.5

_start = threading.Lock()
_attendant: threading.Thread | None = None


def start() -> None:
    """Have this process attend its machine's model host from now on; nothing where there is none, or it does so."""
    global _attendant
    with _start:
        if settings.MODELS_SOCKET and _attendant is None:
            _attendant = threading.Thread(target=attend, name="model-host-attendant", daemon=True)
            _attendant.start()


def attend() -> None:
    """Preload at each start of the model host, if no other process does; never returns."""
    while True:
        try:
            attend_once(HostClient(settings.MODELS_SOCKET))  # one that knows no runner of an earlier host
        except HostUnavailable:
            pass  # it is being restarted
        except Exception:  # a thread that ended would leave the machine unready for good
            log.exception("preloading_broke")
        time.sleep(AGAIN_SECONDS)


def attend_once(client: HostClient) -> None:
    """Preload if nobody has, or does, and then wait until the host ends.

    Raises:
        HostUnavailable: there is no host, or it has just ended.
    """
    with client.attend() as attendance:
        if attendance.has_duty:
            preload(client)
            connections.close_all()  # for as long as the host lives, this thread asks nothing more
            attendance.finish()
        attendance.wait_until_host_ends()


def preload(client: HostClient) -> int:
    """How many pinned versions, of all tenants, are in memory now; what cannot be loaded is logged and left out.

    Raises:
        HostUnavailable: the host has ended.
    """
    started = time.monotonic()
    loaded = 0
    for tenant in Tenant.objects.filter(state=TenantState.ACTIVE):
        with tenant_scope(tenant):
            for version in pinned_versions():
                left_s = started + PRELOAD_SECONDS - time.monotonic()
                loaded += _load(client, tenant, version, min(left_s, LOAD_SECONDS))
    log.info("preloaded", extra={"versions": loaded, "seconds": round(time.monotonic() - started, 3)})
    return loaded


def pinned_versions() -> Iterator[ModelVersion]:
    """The versions that the tenant in scope wants in memory always: whatever its pinned models' routing reaches."""
    pinned = Deployment.objects.filter(activation__routing__pinned=True).select_related("activation")
    for deployment in pinned:
        numbers = routing_of(deployment.activation).versions
        versions = ModelVersion.objects.ready().select_related("bundle")
        yield from versions.filter(model=deployment.model_id, number__in=numbers)


def _load(client: HostClient, tenant: Tenant, version: ModelVersion, deadline_s: float) -> bool:
    key = pool_key(tenant, version)
    try:
        client.pin(key)
        client.runner(key, lambda: load_request(version), max(deadline_s, 0.0))
    except HostUnavailable:
        raise
    except (RuntimeFault, PlatformError, OSError):
        log.warning("not_preloaded", extra={"tenant": tenant.tenant_id, "version": str(version)}, exc_info=True)
        return False
    return True
