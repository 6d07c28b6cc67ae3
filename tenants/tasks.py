"""The clock's tasks that are about all tenants."""

from celery import shared_task

from tenants import jobs


@shared_task(name="tenants.sweep_jobs", time_limit=60)
def sweep_jobs() -> int:
    return jobs.sweep()
