"""Documents' tasks."""

from celery import shared_task

from documents import execution
from tenants.jobs import TenantTask, work_on


@shared_task(name=execution.READ, base=TenantTask)
def read(*, job_id: str) -> None:
    work_on(job_id, execution.read)


@shared_task(name=execution.HELP, base=TenantTask)
def help_read(*, job_id: str) -> None:
    work_on(job_id, execution.help_read)
