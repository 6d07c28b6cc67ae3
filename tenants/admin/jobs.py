"""Jobs of all tenants and the operators' audit, to be read by operators."""

from datetime import datetime

from django.contrib import admin
from django.db.models import Count, Min, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.text import Truncator
from django.utils.timesince import timesince

from tenants.models import Job, JobState, OperatorAudit, Scope, Tenant
from tenants.site.filters import FewRelated
from tenants.site.pages import ScopedPages, column, moment_column, page_url
from tenants.site.parts import Facts, Part, Table, code, link, when
from tenants.site.sites import Nav, operator_site

JOB_TONES = {
    JobState.QUEUED.value: "info",
    JobState.RUNNING.value: "warning",
    JobState.SUCCEEDED.value: "success",
    JobState.FAILED.value: "danger",
}
RECENT_FAILURES = 8
WHY_CHARS = 120


@admin.register(Job, site=operator_site)
class JobPages(ScopedPages):
    """What waits, runs and failed."""

    see = Scope.ADMIN
    nav = Nav("Platform", "pending_actions", 20)
    list_display = ("kind", "tenant", "shown_state", "progress", "attempts", "why", "created", "finished")
    finished = moment_column("Finished", "finished_at")
    created = moment_column("Created", "created_at")
    list_filter = ("state", "kind", ("tenant", FewRelated))
    search_fields = ("object_id", "error_code", "worker")
    list_select_related = ("tenant",)

    @column("State", ordering="state", tones=JOB_TONES)
    def shown_state(self, job: Job) -> tuple[str, str]:
        return job.state, job.get_state_display()

    @column("Why it failed", ordering="error_code")
    def why(self, job: Job) -> str:
        return Truncator(job.error_message).chars(WHY_CHARS)

    @column("Progress")
    def progress(self, job: Job) -> str:
        return "" if job.has_ended else f"{job.progress_percent:.0f} % {job.progress_stage}".strip()

    def parts(self, request: HttpRequest, obj: Job) -> list[Part]:
        facts = {
            "Kind": obj.kind,
            "Tenant": link(page_url(obj.tenant, "change", obj.tenant_id), obj.tenant),
            "Object": obj.object_id,
            "State": obj.get_state_display(),
            "Progress": self.progress(obj),
            "Attempts": f"{obj.attempts} of {obj.max_attempts}",
            "Worker": obj.worker,
            "Created": when(obj.created_at),
            "Due": when(obj.due_at),
            "Started": when(obj.started_at),
            "Lease until": when(obj.lease_until),
            "Finished": when(obj.finished_at),
            "Error": f"{obj.error_code}: {obj.error_message}" if obj.error_code else "",
        }
        return [Part("Job", Facts(facts), is_wide=True)]


@admin.register(OperatorAudit, site=operator_site)
class OperatorAuditPages(ScopedPages):
    """What operators did."""

    see = Scope.ADMIN
    nav = Nav("Platform", "history", 21, "Audit trail")
    list_display = ("happened", "actor", "action", "tenant_id")
    happened = moment_column("When", "at")
    list_filter = ("action",)
    search_fields = ("actor", "action", "tenant_id")

    def parts(self, request: HttpRequest, obj: OperatorAudit) -> list[Part]:
        facts = {"When": when(obj.at), "Who": obj.actor, "What": obj.action, "Tenant": obj.tenant_id}
        return [Part("Event", Facts(facts)), Part("Details", Facts(obj.detail, empty="There are no details."))]


@operator_site.panel(rank=2)
def queue_panel(request: HttpRequest) -> Part:
    """How many jobs of each kind wait and run, and how long the oldest has waited."""
    kinds = (
        Job.objects.open()
        .values("kind")
        .annotate(
            queued=Count("pk", filter=Q(state=JobState.QUEUED)),
            running=Count("pk", filter=Q(state=JobState.RUNNING)),
            oldest=Min("created_at", filter=Q(state=JobState.QUEUED, due_at__lte=timezone.now())),
        )
        .order_by("kind")
    )
    rows = [(row["kind"], row["queued"], row["running"], waited(row["oldest"])) for row in kinds]
    table = Table(("Kind", "Queued", "Running", "Oldest has waited"), rows, "Nothing waits and nothing runs.")
    return Part("Queues", table, (page_url(Job, "changelist"), "All jobs"))


@operator_site.panel(rank=4)
def failures_panel(request: HttpRequest) -> Part:
    """The jobs that failed last."""
    failed = f"{page_url(Job, 'changelist')}?state__exact=failed"
    return Part("Latest failures", failures_table(RECENT_FAILURES), (failed, "All"), is_wide=True)


@operator_site.tenant_part
def failures_of(request: HttpRequest, tenant: Tenant) -> Part:
    """A tenant's jobs that failed last."""
    failed = f"{page_url(Job, 'changelist')}?state__exact=failed&tenant__uuid__exact={tenant.pk}"
    table = failures_table(RECENT_FAILURES, Job.objects.filter(tenant=tenant))
    return Part("Latest failures", table, (failed, "All"), is_wide=True)


def failures_table(most: int, jobs: "QuerySet[Job] | None" = None) -> Table:
    """The jobs that failed last, of all tenants unless some are given, with the sentence why."""
    among = Job.objects.all() if jobs is None else jobs
    failed = among.filter(state=JobState.FAILED).select_related("tenant").order_by("-finished_at")
    rows = [
        (
            when(job.finished_at),
            link(page_url(job.tenant, "change", job.tenant_id), job.tenant.tenant_id),
            link(page_url(job, "change", job.pk), job.kind),
            code(job.error_code),
            job.error_message,
        )
        for job in failed[:most]
    ]
    return Table(("When", "Tenant", "Job", "", "Why"), rows, "No job has failed.")


def waited(since: datetime | None) -> str:
    """How long ago, for people."""
    return timesince(since) if since else "nothing waits"
