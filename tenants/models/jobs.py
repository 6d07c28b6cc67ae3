"""Work that outlives its request: one row a job, in the shared schema, so that one query asks about all tenants."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Self

from django.db import models, transaction
from django.db.models import DurationField, ExpressionWrapper, F, Q, Value, Window
from django.db.models.functions import Coalesce, Greatest, Least, Now, RowNumber
from django.utils import timezone

from common.errors import Conflict
from tenants.models.tenancy import Tenant

LEASE = timedelta(seconds=30)
HINT_AGAIN_AFTER = timedelta(seconds=30)
LONGEST_HINT_GAP = timedelta(minutes=10)


class JobState(models.TextChoices):
    """Where a job is in its life."""

    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobLost(Exception):
    """This worker no longer holds the job: it was cancelled, or its lease ran out and another worker took it."""


class JobQuerySet(models.QuerySet["Job"]):
    """Sets of jobs."""

    def open(self) -> Self:
        """Neither succeeded, failed nor cancelled."""
        return self.filter(state__in=(JobState.QUEUED, JobState.RUNNING))

    def claimable(self, at: datetime) -> Self:
        """Due and queued, or abandoned by a worker whose lease ran out."""
        return self.filter(Q(state=JobState.QUEUED, due_at__lte=at) | Q(state=JobState.RUNNING, lease_until__lt=at))

    def ahead_of(self, job: "Job") -> Self:
        """Jobs of the same tenant and kind that a worker began before this one, and still holds."""
        running = self.filter(
            tenant=job.tenant_id, kind=job.kind, state=JobState.RUNNING, lease_until__gt=timezone.now()
        )
        return running.filter(Q(started_at__lt=job.started_at) | Q(started_at=job.started_at, pk__lt=job.pk))

    def unheard(self, at: datetime) -> Self:
        """Claimable, but no hint of it was sent lately; what lately is grows with the age (`Job.hint_gap`)."""
        age = ExpressionWrapper(Value(at) - F("created_at"), output_field=DurationField())
        quarter = ExpressionWrapper(age / Value(4), output_field=DurationField())
        gap = Least(Greatest(quarter, Value(HINT_AGAIN_AFTER)), Value(LONGEST_HINT_GAP), output_field=DurationField())
        silence = ExpressionWrapper(Value(at) - F("hinted_at"), output_field=DurationField())
        unheard = self.claimable(at).alias(gap=gap, silence=silence)
        return unheard.filter(Q(hinted_at=None) | Q(silence__gt=F("gap")))

    def by_turns(self, most_each: int) -> Self:
        """At most so many of each tenant, those first that have waited longest for a hint, the tenants in turn."""
        waited = (F("hinted_at").asc(nulls_first=True), F("due_at").asc(), F("pk").asc())
        turn = Window(RowNumber(), partition_by=F("tenant_id"), order_by=waited)
        return self.annotate(turn=turn).filter(turn__lte=most_each).order_by("turn", *waited)


class Job(models.Model):
    """One piece of work of one tenant. PostgreSQL holds its truth; the broker only carries hints that it is there.

    queued ──> running ──> succeeded
       │          ├──────> failed
       └──────────┴──────> cancelled

    A state changes only through the methods below, each of which is one conditional UPDATE: of two processes that try
    the same change, exactly one succeeds. `fence` counts the claims; what a worker writes is conditional on the fence
    it was given, so a worker that was taken for dead can no longer write. Run `succeed` in the transaction that writes
    the result: then a lost job leaves no result.

    kind: the name of the Celery task that does it, such as `training.run`.
    object_id: what it is about, in the tenant's schema; everything else about it lies there.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="jobs")
    kind = models.CharField(max_length=60)
    object_id = models.CharField(max_length=64)
    state = models.CharField(max_length=10, choices=JobState, default=JobState.QUEUED)
    progress_percent = models.FloatField(default=0)
    progress_stage = models.CharField(max_length=200, blank=True)
    error_code = models.CharField(max_length=60, blank=True)
    error_message = models.CharField(max_length=1000, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    max_attempts = models.PositiveSmallIntegerField(default=3)
    fence = models.PositiveIntegerField(default=0)
    worker = models.CharField(max_length=200, blank=True)
    lease_until = models.DateTimeField(null=True)
    due_at = models.DateTimeField(default=timezone.now)
    hinted_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects = JobQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)
        indexes = (
            models.Index(fields=["due_at"], condition=Q(state=JobState.QUEUED), name="tenants_job_queued"),
            models.Index(fields=["lease_until"], condition=Q(state=JobState.RUNNING), name="tenants_job_running"),
            models.Index(fields=["tenant", "kind", "-created_at"], name="tenants_job_of_tenant"),
            models.Index(fields=["finished_at"], condition=Q(finished_at__isnull=False), name="tenants_job_ended"),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.id} ({self.state})"

    def hint_gap(self, at: datetime) -> timedelta:
        """How long to wait for a worker before its hint is sent again: the longer, the older the job, so that a full
        queue does not fill up with copies."""
        return min(max((at - self.created_at) / 4, HINT_AGAIN_AFTER), LONGEST_HINT_GAP)

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ENDED

    def claim(self, worker: str) -> None:
        """Take this job for the calling worker, for one lease.

        Raises:
            JobLost: it is not there to be taken: ended, not due, or held by a live worker.
        """
        now = timezone.now()
        claimable = Job.objects.claimable(now).filter(pk=self.pk, attempts__lt=F("max_attempts"))
        with transaction.atomic():  # the row stays locked until the fence is read, so it is surely this claim's
            if not claimable.update(
                state=JobState.RUNNING,
                fence=F("fence") + 1,
                attempts=F("attempts") + 1,
                worker=worker,
                lease_until=now + LEASE,
                hinted_at=None,  # if this worker is lost, the next hint is due as soon as its lease is over
                started_at=Coalesce("started_at", Now()),
            ):
                raise JobLost
            self.refresh_from_db()

    def renew(self) -> None:
        """Hold the job for one more lease."""
        self._while_held(lease_until=timezone.now() + LEASE)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction for what the work writes, in which the job is held for one more lease.

        The job's row is taken before all others, as a cancellation takes them; whoever lost the job writes nothing.
        """
        with transaction.atomic():
            self.renew()
            yield

    def report(self, percent: float, stage: str) -> None:
        """Show how far it is (percent: 0 to 100), and hold it for one more lease."""
        self._while_held(
            lease_until=timezone.now() + LEASE,
            progress_percent=min(max(percent, 0.0), 100.0),
            progress_stage=stage[:200],
        )

    def succeed(self) -> None:
        """End well. Call it in the transaction that writes the result."""
        self._while_held(state=JobState.SUCCEEDED, progress_percent=100.0, lease_until=None, finished_at=timezone.now())

    def fail(self, code: str, message: str) -> None:
        """End badly, for a reason that another attempt would meet again."""
        self._while_held(**_failure(code, message))

    def release(self, delay: timedelta) -> None:
        """Give the job back for a later attempt; the last attempt's reason is then the one it fails with."""
        self._while_held(state=JobState.QUEUED, lease_until=None, due_at=timezone.now() + delay, hinted_at=None)

    def postpone(self, delay: timedelta) -> None:
        """Give the job back untouched: this was no attempt."""
        self._while_held(
            state=JobState.QUEUED,
            attempts=self.attempts - 1,
            lease_until=None,
            due_at=timezone.now() + delay,
            hinted_at=None,
        )

    def cancel(self) -> None:
        """End because somebody asked; its worker notices at its next renewal.

        Raises:
            Conflict: it has ended already.
        """
        changed = (
            Job.objects.open()
            .filter(pk=self.pk)
            .update(state=JobState.CANCELLED, lease_until=None, finished_at=timezone.now())
        )
        self.refresh_from_db()
        if not changed and self.state != JobState.CANCELLED:
            raise Conflict(f"This job has {self.state} already, so it cannot be cancelled.", code="already_ended")

    def abandon(self) -> None:
        """Fail it if its workers were lost too often; nothing happens if it is not so."""
        lost = Job.objects.claimable(timezone.now()).filter(pk=self.pk, attempts__gte=F("max_attempts"))
        lost.update(**_failure("worker_lost", "Its worker was lost, too many times in a row to try again."))

    def _while_held(self, **changes: Any) -> None:
        held = Job.objects.filter(pk=self.pk, state=JobState.RUNNING, fence=self.fence)
        if not held.update(**changes):
            raise JobLost
        for name, value in changes.items():
            setattr(self, name, value)


def _failure(code: str, message: str) -> dict[str, Any]:
    return {
        "state": JobState.FAILED,
        "error_code": code,
        "error_message": message[:1000],
        "lease_until": None,
        "finished_at": timezone.now(),
    }
