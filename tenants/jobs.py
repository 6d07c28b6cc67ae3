"""Handing jobs to workers: insert a row, send a hint, claim, work, end."""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import celery
from celery import current_app
from django.db import DatabaseError, transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from common.errors import PlatformError, Throttled, Unavailable
from tenants.models import Job, JobLost, Tenant, TenantState
from tenants.scope import connection, current_tenant, tenant_scope

log = logging.getLogger(__name__)

RETRY_DELAY = timedelta(seconds=5)
RETRY_AFTER_FULL_S = 30.0
RENEW_EVERY_S = 5.0
PRUNE_BATCH = 1_000
SWEPT_AT_ONCE, SWEPT_OF_A_TENANT = 500, 100
HINT_LIVES_AT_LEAST = timedelta(minutes=5)  # more than the clocks of two machines may differ


class TenantTask(celery.Task):  # type: ignore[type-arg]
    """A task that works for one tenant, named by its uuid in the keyword `tenant`; without it, it refuses to run."""

    abstract = True

    def __call__(self, *args: Any, tenant: str | None = None, **kwargs: Any) -> Any:
        if args or not tenant:
            raise TypeError(f"{self.name} takes keywords only, and `tenant` among them")
        connection.set_schema_to_public()
        found = Tenant.objects.filter(pk=uuid.UUID(tenant)).first()
        if (
            found is None or not found.is_active
        ):  # a suspended tenant's jobs stay queued until the sweep after its return
            log.info("tenant_not_served", extra={"task": self.name, "tenant_uuid": tenant})
            return None
        with tenant_scope(found):
            return self.run(**kwargs)


def submit(kind: str, object_id: str, *, max_attempts: int = 3, job_id: uuid.UUID | None = None) -> Job:
    """Insert a job of the current tenant and send its hint once the transaction commits."""
    job = Job.objects.create(
        id=job_id or uuid.uuid4(),
        tenant=current_tenant(),
        kind=kind,
        object_id=object_id,
        max_attempts=max_attempts,
        hinted_at=timezone.now(),
    )
    transaction.on_commit(lambda: send_hint(job))
    return job


def require_room(kind: str, most_open: int, named: str) -> None:
    """Go on only if the current tenant may have one more open job of this kind, in the transaction that submits it. The
    tenant's row is locked: of two requests for the last place, one gets it.

    named: what the jobs are to the tenant, in the plural.

    Raises:
        Throttled: it has as many as it may have.
    """
    tenant = Tenant.objects.select_for_update(no_key=True).get(pk=current_tenant().pk)
    open_jobs = Job.objects.open().filter(tenant=tenant, kind=kind).count()
    if open_jobs >= most_open:
        raise Throttled(
            f"{open_jobs} {named} are open and a tenant may have {most_open}, so 0 are left; wait for one to end, "
            "or cancel one.",
            code="too_many_open_jobs",
            retry_after_s=RETRY_AFTER_FULL_S,
        )


def send_hint(job: Job, lives: timedelta | None = None) -> None:
    """Tell the workers of this job's queue that it is there. A broker that is away costs nothing but time: the sweep
    sends the hint again.

    lives: after which a worker that comes to the hint drops it unread; never if None.
    """
    names = {"tenant": str(job.tenant_id), "job_id": str(job.pk)}
    expires = lives.total_seconds() if lives else None
    try:
        current_app.send_task(job.kind, kwargs=names, expires=expires, retry=False, ignore_result=True)
    except (BrokerError, OSError):
        log.warning("hint_not_sent", extra={"job_id": str(job.pk), "kind": job.kind}, exc_info=True)
        Job.objects.filter(pk=job.pk).update(hinted_at=None)


def sweep() -> int:
    """Send the hints of jobs that nobody took, fail those whose workers were lost too often; how many were touched.

    A job's first hint stays until it is read; a repeated one expires after two gaps. So a job has a hint in the queue
    for as long as it waits, and never more than a few.
    """
    now = timezone.now()
    unheard = Job.objects.unheard(now).filter(tenant__state=TenantState.ACTIVE)
    jobs = list(unheard.by_turns(SWEPT_OF_A_TENANT)[:SWEPT_AT_ONCE])
    for job in jobs:
        if job.attempts >= job.max_attempts:
            job.abandon()
            continue
        Job.objects.filter(pk=job.pk).update(hinted_at=now)
        send_hint(job, max(2 * job.hint_gap(now), HINT_LIVES_AT_LEAST))
    return len(jobs)


def prune_ended(before: datetime) -> int:
    """Remove the current tenant's jobs that ended before this and that no row points at; how many they were.

    A run keeps its job, which holds its state, as long as there is the run.
    """
    doomed = Job.objects.filter(tenant=current_tenant(), finished_at__lt=before)
    for relation in Job._meta.get_fields(include_hidden=True):
        if relation.auto_created and (relation.one_to_many or relation.one_to_one):
            owner, column = relation.related_model, relation.field.name  # type: ignore[union-attr]
            doomed = doomed.exclude(Exists(owner._default_manager.filter(**{column: OuterRef("pk")})))  # type: ignore[union-attr]
    removed = 0
    while keys := list(doomed.order_by().values_list("pk", flat=True)[:PRUNE_BATCH]):
        removed += Job.objects.filter(pk__in=keys).delete()[0]
    return removed


def work_on(job_id: str, work: Callable[[Job], None]) -> None:
    """Claim the job, do its work while holding its lease, and end it whatever happens.

    `work` ends the job itself with `job.succeed()` in the transaction that writes its result. Delivered twice, or
    already cancelled, it does nothing. A PlatformError fails the job with its code and sentence; one that may pass
    (`Unavailable`) and anything unforeseen gives it back for another attempt, the last of which fails it.
    """
    job = Job.objects.get(pk=uuid.UUID(job_id))
    try:
        job.claim(worker_name())
    except JobLost:
        job.abandon()
        return
    work_on_claimed(job, work)


def worker_name() -> str:
    """This process, as the jobs that it holds name it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def work_on_claimed(job: Job, work: Callable[[Job], None]) -> None:
    """The same for a job of the current tenant that this process has claimed."""
    fields = {"job_id": str(job.pk), "kind": job.kind, "tenant": current_tenant().tenant_id}
    started = time.monotonic()
    try:
        with held(job):
            work(job)
        log.info("job_ended", extra=fields | {"state": job.state, "duration_s": round(time.monotonic() - started, 3)})
    except JobLost:
        log.info("job_lost", extra=fields)
    except Exception as error:
        _end_badly(job, error, fields)


def _end_badly(job: Job, error: Exception, fields: dict[str, Any]) -> None:
    may_pass = not isinstance(error, PlatformError) or isinstance(error, Unavailable)
    if isinstance(error, PlatformError):
        code, message = error.code, error.message
    else:
        log.exception("job_broke", extra=fields)
        code, message = "internal_error", f"Something broke on our side; the log has it under job {job.pk}."
    try:
        if may_pass and job.attempts < job.max_attempts:
            job.release(RETRY_DELAY * job.attempts)
        else:
            job.fail(code, message)
    except JobLost:
        log.info("job_lost", extra=fields)


@contextmanager
def held(job: Job) -> Iterator[None]:
    """Renew the job's lease from a thread of its own while the block runs, so that long silent work keeps it."""
    done = threading.Event()

    def renew() -> None:
        try:
            while not done.wait(RENEW_EVERY_S):
                try:
                    job.renew()
                except JobLost:
                    return
                except DatabaseError:  # the lease outlasts several failed renewals, and the next has a new connection
                    log.warning("lease_not_renewed", extra={"job_id": str(job.pk)}, exc_info=True)
                    connection.close()
        finally:
            connection.close()

    thread = threading.Thread(target=renew, name=f"lease-{job.pk}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
