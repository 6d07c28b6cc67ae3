"""Having versions in memory where they will be asked: as a job for a process without a model host, and on every machine
that has served a model when its deployment changes somewhere else.
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.models import Q

from common.background import Background
from common.errors import Conflict, PlatformError, Unavailable
from inference.pool import client_of
from models_registry.history import routing_of
from models_registry.loading import limits_under, load_request, pool_key
from models_registry.models import Deployment, ModelVersion
from models_registry.routing import Routing
from models_registry.warming import load_here
from runtimes.client import HostClient
from runtimes.errors import RuntimeFault
from tenants.models import Job, Tenant
from tenants.scope import tenant_scope
from tenants.tables import listener

log = logging.getLogger(__name__)

GATHER_S = 0.02  # the rows of one change are notified of one by one
LOAD_WITHIN_S = 60.0


def warm(job: Job) -> None:
    """Have this worker's machine hold the version that the job is about.

    Raises:
        Conflict: it cannot be loaded, or was deleted. Unavailable: not now.
    """
    version = ModelVersion.objects.select_related("model", "bundle").filter(pk=job.object_id).first()
    if version is None:
        raise Conflict("The version was deleted meanwhile.", code="version_deleted")
    if not settings.MODELS_SOCKET:
        raise Unavailable("No machine that was asked has a model host.", code="host_unavailable")
    load_here(version, None, time.monotonic() + (settings.WARM_UP_SECONDS or LOAD_WITHIN_S))
    job.succeed()


class Follower:
    """Hears that some tenant's deployments changed, and has this machine follow, in a thread of its own."""

    def __init__(self) -> None:
        self.begin_in_fork()

    def forget(self, tag: str) -> None:
        """Follow the tenant whose schema this is."""
        with self._lock:
            self._schemas.add(tag)
        self._background.ask()

    def forget_all(self) -> None:
        """Nothing: what was missed is loaded when it is asked for."""

    def begin_in_fork(self) -> None:
        """Know of nothing yet."""
        self._lock = threading.Lock()
        self._schemas: set[str] = set()
        self._background = Background("deployments", self._follow, after_s=GATHER_S)

    def _follow(self) -> None:
        with self._lock:
            schemas, self._schemas = self._schemas, set()
        client = client_of(settings.MODELS_SOCKET)
        for schema in schemas:
            try:
                tenant = Tenant.objects.filter(schema_name=schema).first()
                if tenant is not None and tenant.is_active:
                    follow(client, tenant)
            except Exception:  # what is not in memory is loaded when it is asked for
                log.warning("deployment_not_followed", extra={"schema": schema}, exc_info=True)
        connections.close_all()


def start() -> None:
    """Have this process's machine follow from now on; nothing where it has no model host."""
    if settings.MODELS_SOCKET:
        listener.subscribe("registry", Follower())


def follow(client: HostClient, tenant: Tenant) -> None:
    """Have this machine hold what requests for a tenant's models go to now: of the models that it has a version of, and
    of those that are pinned; with their limits, and nothing pinned that is so no more.

    Raises:
        RuntimeFault: the model host does not answer.
    """
    mine = f"{tenant.uuid.hex}/"
    residents = [runner for runner in client.stats().runners if not runner["retired"]]
    runners = {runner["key"]: runner for runner in residents if runner["key"].startswith(mine)}
    with tenant_scope(tenant):
        known = ModelVersion.objects.filter(pk__in=[key.removeprefix(mine) for key in runners if _is_plain(key)])
        models = set(known.values_list("model", flat=True))
        pinned: set[str] = set()
        wanted = Q(model__in=models) | Q(activation__routing__pinned=True)
        for deployment in Deployment.objects.select_related("activation").filter(wanted):
            routing = routing_of(deployment.activation)
            keys = _follow_one(client, tenant, deployment, routing, runners)
            pinned |= keys if routing.is_pinned else set()
    for key, runner in runners.items():
        if runner["pinned"] and key not in pinned:
            client.pin(key, pinned=False)


def _is_plain(key: str) -> bool:
    return key.count("/") == 1  # a trial has one more


def _follow_one(
    client: HostClient, tenant: Tenant, deployment: Deployment, routing: Routing, runners: Mapping[str, Any]
) -> set[str]:
    """The keys of a model's routed versions, which this machine holds now, as far as they can be loaded."""
    limits = limits_under(routing.limits).to_json()
    versions = ModelVersion.objects.ready().select_related("model", "bundle").filter(model=deployment.model_id)
    keys = set()
    for version in versions.filter(number__in=routing.versions):
        key = pool_key(tenant, version)
        keys.add(key)
        if key in runners and runners[key]["limits"] != limits:
            client.drain(key)
        _load(client, key, version, is_pinned=routing.is_pinned)
    return keys


def _load(client: HostClient, key: str, version: ModelVersion, *, is_pinned: bool) -> None:
    try:
        if is_pinned:
            client.pin(key)
        client.runner(key, lambda: load_request(version), LOAD_WITHIN_S)
    except (RuntimeFault, PlatformError, OSError):
        log.warning("version_not_warmed", extra={"version": str(version)}, exc_info=True)
