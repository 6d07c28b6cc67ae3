"""Inference's tasks."""

from celery import shared_task

from inference import execution, lanes
from inference.execution import KIND
from tenants.jobs import TenantTask, work_on


@shared_task(name=KIND, base=TenantTask)
def predict(*, job_id: str) -> None:
    work_on(job_id, execution.predict)


@shared_task(name=lanes.QUEUED_TASK, base=TenantTask, acks_late=False)
def predict_queued(*, version_id: str, model_name: str, body: str, reply_key: str, answer_before: float) -> None:
    lanes.work_queued(
        version_id=version_id, model_name=model_name, body=body, reply_key=reply_key, answer_before=answer_before
    )


@shared_task(name="inference.sweep", soft_time_limit=3540, time_limit=3600)
def sweep() -> int:
    return execution.sweep()
