"""What a worker does with a prediction that is fetched later."""

import logging
import time
from datetime import datetime, timedelta
from typing import Any

import orjson
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from common.errors import Conflict
from inference import predictions
from inference.models import AsyncPrediction, BatchJob
from inference.served import Served
from tenants import jobs
from tenants.models import Job, Tenant, TenantState
from tenants.scope import tenant_scope

log = logging.getLogger(__name__)

KIND = "inference.predict"
ANSWERS_KEPT = timedelta(days=7)
JOBS_KEPT = timedelta(days=30)
SWEEP_BATCH = 200  # a row holds a whole request and its answer


def predict(job: Job) -> None:
    """Predict what the job's row asks for and keep the answer.

    Raises:
        Conflict: the version was deleted meanwhile.
    """
    asked = AsyncPrediction.objects.select_related("version").get(pk=job.pk)
    if asked.version is None:
        raise Conflict("The version was deleted while the request waited.", code="version_deleted")
    deadline = time.monotonic() + settings.PREDICTION_DEADLINE_S
    answer = predictions.predict(Served.of(asked.version), asked.model_name, asked.request, deadline)
    asked.answer = orjson.loads(predictions.encoded(answer | {"id": asked.pk.hex}))  # JSON knows no NaN: null
    with transaction.atomic():
        asked.save(update_fields=["answer"])
        job.succeed()


def sweep() -> int:
    """Remove, tenant by tenant, answers that waited long enough to be fetched, and old jobs; how many rows went."""
    removed, now = 0, timezone.now()
    for tenant in Tenant.objects.exclude(state=TenantState.DELETING):
        try:
            with tenant_scope(tenant):
                removed += _prune(AsyncPrediction.objects.all(), now - ANSWERS_KEPT)
                removed += _prune(BatchJob.objects.all(), now - JOBS_KEPT)
                removed += jobs.prune_ended(now - JOBS_KEPT)
        except Exception:  # one tenant's rows must not keep the others' from being swept
            log.exception("sweep_failed", extra={"tenant": tenant.tenant_id})
    return removed


def _prune(rows: QuerySet[Any], before: datetime) -> int:
    """Remove what was asked for before this, unless it still waits, each with its job."""
    is_open = Exists(Job.objects.open().filter(pk=OuterRef("job_id")))
    doomed = rows.filter(~is_open, created_at__lt=before).order_by()
    removed = 0
    while keys := list(doomed.values_list("pk", "job_id")[:SWEEP_BATCH]):
        with transaction.atomic():
            removed += rows.filter(pk__in=[key for key, _ in keys]).delete()[0]
            removed += Job.objects.filter(pk__in=[job for _, job in keys]).delete()[0]
    return removed
