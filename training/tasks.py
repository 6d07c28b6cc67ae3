"""Training's tasks."""

from celery import shared_task

from tenants.jobs import TenantTask, work_on
from training import execution
from training.execution import DECISION_KIND, RUN_KIND


@shared_task(name=RUN_KIND, base=TenantTask, soft_time_limit=2 * 3600, time_limit=2 * 3600 + 60)
def run(*, job_id: str) -> None:
    work_on(job_id, execution.train)


@shared_task(name=DECISION_KIND, base=TenantTask, soft_time_limit=60, time_limit=90)
def decide_activation(*, job_id: str) -> None:
    work_on(job_id, execution.decide_activation)
