"""Every part of the stack: whether it is ready, and why not."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from django.conf import settings
from django.core.cache import cache, caches
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from inference.pool import ModelPool
from runtimes.libraries import BUILT_IN
from tenantry.celery import app
from tenants import provisioning
from tenants.models import SchemaTemplate
from tenants.scope import shared_scope
from tenants.tasks import SWEPT_AT

ANSWER_WITHIN_S = 2
SWEPT_WITHIN_S = 60.0


class NotReady(Exception):
    """A part is not ready, for the reason that it says."""


@dataclass(frozen=True)
class Part:
    """One part of the stack. detail: what it is doing, or why it is not ready."""

    name: str
    is_ready: bool
    detail: str


def parts() -> list[Part]:
    """Every part of the stack as it is now; takes as long as the workers have to answer, some two seconds."""
    looked = [
        _look("database", _database),
        _look("migrations", _migrations),
        _look("cache", _cache),
        _look("broker", _broker),
        _look("model_host", _model_host),
        _look("beat", _beat),
    ]
    return looked + _workers()


def as_json(found: list[Part]) -> dict[str, Any]:
    """`{"ready", "parts": {name: {"ready", "detail"}}}`."""
    return {
        "ready": all(part.is_ready for part in found),
        "parts": {part.name: {"ready": part.is_ready, "detail": part.detail} for part in found},
    }


def _look(name: str, look: Callable[[], str]) -> Part:
    try:
        return Part(name, True, look())
    except Exception as error:  # whatever a driver raises is the reason to show
        lines = str(error).strip().splitlines()
        return Part(name, False, f"{lines[0] if lines else type(error).__name__}"[:300])


def _database() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        return f"PostgreSQL {cursor.fetchone()[0]}"


def _migrations() -> str:
    with shared_scope():
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            raise NotReady("the shared schema is behind; run `manage.py upgrade`")
        wanted = provisioning.fingerprint()
        if not SchemaTemplate.objects.filter(pk=wanted).exists():
            raise NotReady("the template of tenants' schemas is behind; run `manage.py upgrade`")
        behind = provisioning.behind(wanted).count()
        if behind:
            raise NotReady(f"{behind} tenants are behind; run `manage.py upgrade`")
    return "up to date"


def _cache() -> str:
    cache.set("status", 1, 10)
    if cache.get("status") != 1:
        raise NotReady("it does not return what it was given")
    return "answers"


def _broker() -> str:
    with app.connection_for_write() as broker:
        broker.ensure_connection(max_retries=1, interval_start=0, timeout=ANSWER_WITHIN_S)
        return f"{broker.transport_cls or broker.transport.driver_type} answers"


def _model_host() -> str:
    if not settings.MODELS_SOCKET:
        return "none here: predictions take the queue"
    stats = cast(ModelPool, caches["models"]).stats()
    told = f"{len(stats.runners)} runners, {stats.bytes >> 20} of {stats.memory_bytes >> 20} MiB"
    declared = ", ".join(sorted(stats.library_sets.keys() - set(BUILT_IN)))
    return f"{told}; library sets: {declared}" if declared else told


def _beat() -> str:
    swept_at = cache.get(SWEPT_AT)
    if swept_at is None:
        raise NotReady("no sweep was seen yet: the clock (beat) or the worker of the queue `default` is not running")
    age_s = time.time() - swept_at
    if age_s > SWEPT_WITHIN_S:
        raise NotReady(f"the last sweep was {age_s:.0f} s ago: the clock (beat) or its worker stands still")
    return f"swept {age_s:.0f} s ago"


def _workers() -> list[Part]:
    """One part a queue: who consumes it."""
    names = [queue.name for queue in app.conf.task_queues]
    try:
        answers = app.control.inspect(timeout=ANSWER_WITHIN_S).active_queues() or {}
    except Exception as error:  # the broker's drivers raise what they like; the broker's own part says it better
        return [Part(f"queue_{name}", False, f"the broker cannot be asked: {type(error).__name__}") for name in names]
    return [_queue(name, answers) for name in names]


def _queue(name: str, answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> Part:
    consumers = [worker for worker, queues in answers.items() if name in {queue["name"] for queue in queues}]
    if not consumers:
        return Part(f"queue_{name}", False, f"no worker consumes the queue `{name}`")
    return Part(f"queue_{name}", True, f"{len(consumers)} worker{'s' if len(consumers) > 1 else ''}")
