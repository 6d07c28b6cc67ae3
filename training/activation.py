"""Whether the version of a run serves, once it was inspected: the worker's side of `activate_if`."""

import time
from dataclasses import replace
from datetime import timedelta

from django.db import transaction

from common.errors import Conflict
from models_registry.history import NOTHING
from models_registry.models import Deployment, ModelVersion, VersionState
from models_registry.services import activate
from tenants.models import Job
from training.decisions import Decision, decide, keep_decision
from training.models import Run

DECISION_KIND = "training.decide_activation"
DECISION_ATTEMPTS = 60
DECISION_RETRY = timedelta(seconds=1)
LONGEST_RETRY = timedelta(minutes=1)
INSPECTION_WAIT_S = 5.0
LOOK_EVERY_S = 0.2


def decide_activation(job: Job) -> None:
    """Activate the run's version if it was inspected well and beats what serves, or note why not.

    A job of its own, so that a killed worker changes nothing: the decision, the activation and the end of the job are
    one transaction. While the inspection lasts the job is given back, at most DECISION_ATTEMPTS times.
    """
    run = Run.objects.select_related("version__model").get(pk=job.object_id)
    version = run.version
    if version is None:
        _settle(job, run, Decision(False, "The version was deleted before it could be judged.", run.activate_if or {}))
        return
    if not _await_inspection(version) and job.attempts < job.max_attempts:
        job.release(min(DECISION_RETRY * job.attempts, LONGEST_RETRY))
        return
    while not _try_to_settle(job, run, version):
        pass  # somebody else activated in between: compare with what serves now


def _await_inspection(version: ModelVersion) -> bool:
    """Whether the version's inspection is over; a short one is waited for."""
    deadline = time.monotonic() + INSPECTION_WAIT_S
    while not _is_inspected(version):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_EVERY_S)
        version.refresh_from_db()
    return True


def _is_inspected(version: ModelVersion) -> bool:
    return version.state in (VersionState.READY, VersionState.REJECTED)


def _try_to_settle(job: Job, run: Run, version: ModelVersion) -> bool:
    """Decide against what serves now; False if something else serves by the time that the decision is written."""
    deployment = Deployment.objects.select_related("activation__version").filter(model=version.model).first()
    active = deployment.version if deployment else None
    decision = decide(run.activate_if or {}, version, active)
    try:
        _settle(job, run, decision, version, active)
    except Conflict as error:
        if error.code == "stale_expected_version":
            return False
        _settle(job, run, replace(decision, activates=False, reason=error.message))
    return True


def _settle(
    job: Job, run: Run, decision: Decision, version: ModelVersion | None = None, active: ModelVersion | None = None
) -> None:
    with transaction.atomic():
        if decision.activates and version is not None:
            activate(
                version=version,
                actor=run.created_by,
                reason=decision.reason,
                expected_version=active.number if active else NOTHING,
                criteria=dict(decision.numbers),
            )
        keep_decision(run, decision.to_json())
        run.write_log(decision.reason)
        job.succeed()
