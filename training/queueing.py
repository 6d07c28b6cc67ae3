"""Rows of runs and their jobs, made together."""

import uuid
from collections.abc import Mapping
from typing import Any

from models_registry.models import Bundle
from tenants import jobs
from training.models import LIBRARY_SET, Experiment, Purpose, Run
from training.run_requests import CheckedRun, RunRequest

RUN_KIND = "training.run"
RETRIES = 2  # of a run whose worker was lost


def queue_run(
    request: RunRequest,
    checked: CheckedRun,
    *,
    actor: str,
    purpose: str = Purpose.FIT,
    kind: str = RUN_KIND,
    parent: Run | None = None,
    search: Mapping[str, Any] | None = None,
    code: Bundle | None = None,
    group: uuid.UUID | None = None,
) -> Run:
    """A queued run and its job, under one id; call it in a transaction."""
    run_id = uuid.uuid4()
    return Run.objects.create(
        id=run_id,
        job=jobs.submit(kind, run_id.hex, job_id=run_id, max_attempts=1 + RETRIES),
        purpose=purpose,
        parent=parent,
        experiment=Experiment.objects.get_or_create(name=request.experiment)[0] if request.experiment else None,
        trainer=request.trainer,
        params=checked.params,
        target=request.target,
        validation=checked.validation,
        dataset_version=checked.dataset_version,
        model_name=request.model,
        activate_if=checked.activate_if,
        search=dict(search) if search is not None else None,
        code=code,
        code_digest=code.digest if code else "",
        tags={LIBRARY_SET: request.library_set} if request.library_set else {},
        group=group,
        created_by=actor,
    )
