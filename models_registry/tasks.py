"""The registry's work that outlives its request."""

from celery import shared_task

from models_registry import execution
from tenants.jobs import TenantTask, work_on


@shared_task(name="models_registry.inspect", base=TenantTask, soft_time_limit=1500, time_limit=1560)
def inspect(*, job_id: str) -> None:
    work_on(job_id, execution.inspect)


@shared_task(name="models_registry.sweep_storage", soft_time_limit=3540, time_limit=3600)
def sweep_storage() -> int:
    return execution.sweep_storage()
