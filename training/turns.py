"""Which run comes next, whoever asked first: tenants take turns, each with as many runs at once as it may have."""

from django.db import connection, transaction
from django.db.models import Count, F, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from tenants import jobs
from tenants.models import Job, JobLost, JobState, Tenant, TenantState
from tenants.scope import tenant_scope
from training import execution
from training.execution import RUN_KIND

TURN_LOCK = 7_205_418_823  # of PostgreSQL's advisory locks: two workers never count the same place as free
MOST_LOST = 20


def take_a_turn() -> bool:
    """Work on the run whose turn it is; False if there is none.

    A hint says that there is a run, not which one a worker should take: a hundred hints of one tenant before another
    tenant's only one would else keep that waiting for a hundred runs.
    """
    job = _claimed()
    if job is None:
        return False
    with tenant_scope(job.tenant):
        try:
            jobs.work_on_claimed(job, execution.work)
        finally:
            _hint_at_next(job.tenant)
    return True


def whose_turn() -> QuerySet[Job]:
    """The runs that a worker may claim now, the next one first.

    First come tenants with the fewest runs under way, then those whose last run began longest ago.
    """
    now = timezone.now()
    of_tenant = Job.objects.filter(tenant=OuterRef("tenant"), kind=RUN_KIND).order_by()
    held = of_tenant.filter(state=JobState.RUNNING, lease_until__gte=now).values("tenant")
    waiting = Job.objects.claimable(now).filter(
        kind=RUN_KIND, tenant__state=TenantState.ACTIVE, attempts__lt=F("max_attempts")
    )
    counted = waiting.annotate(
        held=Coalesce(Subquery(held.annotate(count=Count("pk")).values("count")), 0),
        served_at=Subquery(of_tenant.exclude(started_at=None).order_by("-started_at").values("started_at")[:1]),
    )
    free = counted.filter(held__lt=F("tenant__max_running_runs")).select_related("tenant")
    return free.order_by("held", F("served_at").asc(nulls_first=True), "created_at", "pk")


def _claimed() -> Job | None:
    """The next run, claimed for this worker."""
    for _ in range(MOST_LOST):
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [TURN_LOCK])
            job = whose_turn().first()
            if job is None:
                return None
            try:
                job.claim(jobs.worker_name())
            except JobLost:  # cancelled in between
                continue
            return job
    return None


def _hint_at_next(tenant: Tenant) -> None:
    """Tell the workers that a place of this tenant is free, where it has runs that waited for one."""
    waiting = Job.objects.filter(tenant=tenant, kind=RUN_KIND, state=JobState.QUEUED, due_at__lte=timezone.now())
    if (job := waiting.order_by("created_at").first()) is not None:
        jobs.send_hint(job)
