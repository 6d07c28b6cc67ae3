"""Workers and queues: who consumes what, how much waits, and how long the oldest job has."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from django.db.models import Count, Min, Q
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from kombu.exceptions import OperationalError

from tenantry.celery import app
from tenantry.worker_reports import WorkerReport, all_reports
from tenants.admin.jobs import failures_table, waited
from tenants.models import Job, JobState, Scope
from tenants.site.pages import page_url
from tenants.site.parts import Part, Table, label, link, size, when_at
from tenants.site.sites import Nav, operator_site

LOOK_AGAIN_S = 5
SHOWN_WORKERS = 200
SHOWN_FAILURES = 20
BROKER_WITHIN_S = 1


@operator_site.page("workers", Nav("Platform", "precision_manufacturing", 22, "Workers and queues"), Scope.ADMIN)
def workers(request: HttpRequest) -> HttpResponse:
    """Who works, what waits, and what failed."""
    reports, fault = _reports()
    parts = [_queues_part(reports), _kinds_part(), _workers_part(reports, fault), _failures_part()]
    return operator_site.shown(request, "admin/detail.html", "Workers and queues", parts=parts, refresh_s=LOOK_AGAIN_S)


def _reports() -> tuple[list[WorkerReport], str]:
    """What the workers said, or why that is not known."""
    return _or_fault(all_reports, [])


def _or_fault(ask: Callable[[], Any], otherwise: Any) -> tuple[Any, str]:
    try:
        return ask(), ""
    except Exception as error:  # whatever a driver raises: a page about what is broken must not break
        return otherwise, f"{type(error).__name__}: {str(error)[:200]}"


def _queues_part(reports: Sequence[WorkerReport]) -> Part:
    depths, fault = _or_fault(queue_depths, {})
    rows = []
    for queue in (queue.name for queue in app.conf.task_queues):
        consumers = [one for one in reports if queue in one.queues and not one.is_silent]
        lanes = sum(one.concurrency for one in consumers)
        standing = label("Consumed", "success") if consumers else label("Nobody consumes it", "danger")
        rows.append((queue, standing, depths.get(queue, ""), len(consumers), lanes))
    headers = ("Queue", "", "Messages that wait", "Workers", "Work at once")
    notes = [f"The broker does not say how much waits: {fault}."] if fault else []
    return Part("Queues", Table(headers, rows), notes=notes, is_wide=True)


def queue_depths() -> dict[str, int]:
    """How many messages wait in each queue of the broker.

    Raises:
        OperationalError: the broker is away.
    """
    with app.connection_for_read() as broker:
        broker.ensure_connection(max_retries=1, interval_start=0, timeout=BROKER_WITHIN_S)
        channel: Any = broker.default_channel  # its transport's own
        absent: tuple[type[BaseException], ...] = (*broker.channel_errors, OperationalError)
        depths: dict[str, int] = {}
        for queue in app.conf.task_queues:
            try:
                depths[queue.name] = channel.queue_declare(queue=queue.name, passive=True).message_count
            except absent:  # nothing was ever sent to it
                depths[queue.name], channel = 0, broker.channel()
        return depths


def _kinds_part() -> Part:
    """What waits and runs, by kind, as PostgreSQL has it: the broker's messages are hints of these."""
    due = Q(state=JobState.QUEUED, due_at__lte=timezone.now())
    kinds = (
        Job.objects.open()
        .order_by("kind")
        .values("kind")
        .annotate(
            queued=Count("pk", filter=Q(state=JobState.QUEUED)),
            due=Count("pk", filter=due),
            running=Count("pk", filter=Q(state=JobState.RUNNING)),
            tenants=Count("tenant", distinct=True),
            oldest=Min("due_at", filter=due),
        )
    )
    rows = [_kind_row(**kind) for kind in kinds]
    headers = ("Kind", "Queue", "Queued", "Due", "Running", "Tenants", "Oldest has waited")
    more = (page_url(Job, "changelist"), "All jobs")
    return Part("Jobs", Table(headers, rows, "Nothing waits and nothing runs."), more, is_wide=True)


def _kind_row(kind: str, queued: int, due: int, running: int, tenants: int, oldest: datetime | None) -> tuple[Any, ...]:
    path = f"{page_url(Job, 'changelist')}?kind={kind}&state__exact=queued"
    return link(path, kind), queue_of_kind(kind), queued, due, running, tenants, waited(oldest)


def queue_of_kind(kind: str) -> str:
    """The queue that jobs of this kind are sent to."""
    return str(app.amqp.router.route({}, kind)["queue"].name)


def _workers_part(reports: Sequence[WorkerReport], fault: str) -> Part:
    rows = [
        (
            one.name,
            label("Silent", "danger") if one.is_silent else label("Works", "success"),
            ", ".join(one.queues),
            f"{one.active} of {one.concurrency}",
            one.pool,
            one.done,
            size(one.resident_bytes),
            when_at(one.started_at),
            when_at(one.at),
        )
        for one in reports[:SHOWN_WORKERS]
    ]
    headers = ("Worker", "", "Queues", "Busy", "Pool", "Done", "Memory", "Since", "Last heard of")
    empty = "No worker has reported lately: start one, or look whether Valkey answers."
    notes = [f"What workers reported is not known: {fault}."] if fault else []
    return Part("Workers", Table(headers, rows, empty), notes=notes, is_wide=True)


def _failures_part() -> Part:
    failed = f"{page_url(Job, 'changelist')}?state__exact=failed"
    return Part("Latest failures", failures_table(SHOWN_FAILURES), (failed, "All"), is_wide=True)
