"""What a tenant's runs and datasets may use."""

from django.db.models import Sum

from common.errors import Denied, Throttled
from runtimes.limits import Limits
from tenants.models import JobState, Tenant
from tenants.scope import current_tenant
from training.models import DatasetVersion, Purpose, Run

RETRY_AFTER_FULL_S = 30.0


def limits_now() -> Limits:
    """The budget of one run of the current tenant."""
    tenant = current_tenant()
    return Limits(
        memory_bytes=tenant.max_run_memory_bytes,
        cpu_seconds=tenant.max_run_cpu_seconds,
        fit_seconds=float(tenant.max_run_seconds),
    )


def require_open_run() -> None:
    """Go on only if the tenant may have one more open run. Its row is locked, so that of two requests for the last
    place one gets it. A search counts once, whatever the number of its trials.

    Raises:
        Throttled: it has as many as it may have.
    """
    tenant = Tenant.objects.select_for_update(no_key=True).get(pk=current_tenant().pk)
    asked_for = Run.objects.filter(job__state__in=(JobState.QUEUED, JobState.RUNNING)).exclude(purpose=Purpose.TRIAL)
    open_runs = asked_for.count()
    if open_runs >= tenant.max_open_runs:
        raise Throttled(
            f"{open_runs} runs are open and this tenant may have {tenant.max_open_runs}, so 0 are left; "
            "wait for one to end, or cancel one.",
            code="too_many_open_runs",
            retry_after_s=RETRY_AFTER_FULL_S,
        )


def require_dataset_room(size_bytes: int) -> None:
    """Go on only if the tenant's datasets may grow by this many bytes.

    Raises:
        Denied: they may not; the sentence says what is left.
    """
    tenant = current_tenant()
    used = DatasetVersion.objects.aggregate(total=Sum("size_bytes"))["total"] or 0
    left = max(0, tenant.max_dataset_bytes - used)
    if size_bytes > left:
        raise Denied(
            f"The table has {size_bytes} bytes, and of the {tenant.max_dataset_bytes} that this tenant's datasets may "
            f"have {left} are left; delete versions that are no longer needed, or ask the operator for more.",
            code="quota_exceeded",
        )
