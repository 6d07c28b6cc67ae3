"""The clock's tasks that are about all tenants."""

import time

from celery import shared_task
from django.core.cache import cache

from tenants import idempotency, jobs

SWEPT_AT = "jobs-swept-at"  # by which everybody sees that the clock and its worker are alive


@shared_task(name="tenants.sweep_jobs", time_limit=60)
def sweep_jobs() -> int:
    swept = jobs.sweep()
    cache.set(SWEPT_AT, time.time(), timeout=3600)
    return swept


@shared_task(name="tenants.sweep_answers", time_limit=600)
def sweep_answers() -> int:
    return idempotency.sweep()
