"""Inference's tasks."""

from typing import Any

from celery import shared_task

from inference import execution, warming
from inference.batch import work as batch_work
from inference.execution import KIND
from inference.queued import work
from inference.queued.queues import QUEUED_TASK
from models_registry.warming import WARM
from tenants.jobs import TenantTask, work_on


@shared_task(name=KIND, base=TenantTask)
def predict(*, job_id: str) -> None:
    work_on(job_id, execution.predict)


@shared_task(name=batch_work.KIND, base=TenantTask)
def predict_table(*, job_id: str) -> None:
    work_on(job_id, batch_work.predict_table)


@shared_task(name=WARM, base=TenantTask)
def warm(*, job_id: str) -> None:
    work_on(job_id, warming.warm)


@shared_task(name=QUEUED_TASK, acks_late=False, acks_on_failure_or_timeout=True)
def predict_queued(**message: Any) -> None:
    work.work_on(message)


@shared_task(name="inference.sweep", soft_time_limit=3540, time_limit=3600)
def sweep() -> int:
    return execution.sweep()
