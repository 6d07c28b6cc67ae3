"""What a worker does for the registry: inspect an uploaded version, clear away what nothing names."""

import logging
import os
from datetime import timedelta

from django.conf import settings
from django.db import transaction

from common.errors import Unavailable
from models_registry import blobs, packs, spooling
from models_registry.compilation import CompiledForm, compile_version
from models_registry.metadata import storable_fault
from models_registry.models import ModelVersion, RegisteredModel, VersionState
from runtimes import errors as faults
from runtimes.client import HostClient, Inspection
from runtimes.limits import Limits
from tenants.jobs import submit
from tenants.models import Job, JobLost, JobState, Tenant, TenantState
from tenants.scope import current_tenant, tenant_scope

log = logging.getLogger(__name__)

INSPECT = "models_registry.inspect"
INSPECT_ATTEMPTS = 10
ONE_AT_A_TIME = timedelta(seconds=1)  # a tenant's inspections: what hangs must not hold every worker
STAGES = {"fetching": 5.0, "recognising": 20.0, "loading": 40.0, "predicting a sample": 60.0, "compiling": 80.0}
MAX_STAGES = 30
DEATHS_ALLOWED = 2  # a runner that dies three times in a row dies of its artifact
PASSING = (faults.HostUnavailable, faults.PoolFull, faults.ConfinementUnavailable)
OUR_FAULTS = {fault.code for fault in PASSING} | {"storage_unavailable", "cache_full", "disk_full"}
BROKE = "Inspecting it broke on our side; upload it again, and tell the operator if that fails, too."


def inspect(job: Job) -> None:
    """Have the job's version ready or rejected. A rejected artifact is a result: its job succeeds.

    Raises:
        Unavailable: the model host or the storage is away; the job may be tried again.
    """
    if Job.objects.ahead_of(job).exists():
        job.postpone(ONE_AT_A_TIME)
        return
    version = ModelVersion.objects.select_related("bundle", "model").filter(pk=job.object_id).first()
    if version is None or not version.begin_inspection():
        job.succeed()
        return
    progress = _Progress(job)
    try:
        inspection = _inspect(version, job, progress)
        compiled = compile_version(version, inspection, progress)
    except faults.ArtifactRejected as rejection:
        _reject(job, version, rejection.code, rejection.reason)
    except (Unavailable, JobLost):  # says nothing of the artifact: `_settle_stuck` has it inspected again
        raise
    except Exception:
        if job.attempts >= job.max_attempts:
            version.reject("inspection_failed", BROKE)
        raise
    else:
        _accept(job, version, inspection, compiled)


def sweep_storage() -> int:
    """Clear away, tenant by tenant, files that nothing names; how many were removed."""
    removed = 0
    for tenant in Tenant.objects.exclude(state=TenantState.DELETING):
        try:
            with tenant_scope(tenant):
                removed += blobs.sweep()
                _settle_stuck()
        except Exception:  # one tenant's storage must not keep the others' from being swept
            log.exception("sweep_failed", extra={"tenant": tenant.tenant_id})
    packs.drop_tenants_except({key.hex for key in Tenant.objects.values_list("pk", flat=True)})
    spooling.sweep()
    return removed


def _inspect(version: ModelVersion, job: Job, progress: "_Progress") -> Inspection:
    progress("fetching")
    bundle_fd = packs.open_pack(version.bundle)
    try:
        return HostClient(settings.MODELS_SOCKET).inspect(
            bundle_fd,
            tenant=current_tenant().uuid.hex,
            metadata=version.metadata,
            limits=Limits(),
            on_stage=progress,
        )
    except PASSING as fault:
        raise Unavailable(fault.message, code=fault.code) from fault
    except faults.RunnerDied as fault:
        if job.attempts <= DEATHS_ALLOWED:
            raise Unavailable(fault.message, code=fault.code) from fault
        raise faults.ArtifactRejected(fault.code, fault.message) from fault
    except faults.ArtifactRejected:
        raise
    except faults.RuntimeFault as fault:
        raise faults.ArtifactRejected(fault.code, fault.message) from fault
    finally:
        os.close(bundle_fd)


class _Progress:
    """Shows an inspection's stages with its job; a runner that floods it costs no more writes than another."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._shown: list[str] = []

    def __call__(self, stage: str) -> None:
        if len(self._shown) < MAX_STAGES and stage not in self._shown:
            self._shown.append(stage)
            self._job.report(STAGES.get(stage, self._job.progress_percent), stage)


def _accept(job: Job, version: ModelVersion, inspection: Inspection, compiled: CompiledForm) -> None:
    signature = inspection.signature.to_json()
    found = {
        "libraries": inspection.libraries,
        "made_with": inspection.made_with,
        "type_name": inspection.type_name,
        "warnings": list(inspection.warnings),
        "memory_bytes": inspection.memory_bytes,
        "load_seconds": inspection.load_seconds,
        "scan": inspection.scan,
    }
    if fault := storable_fault([signature, found]):
        _reject(job, version, "invalid_signature", f"What the artifact says of itself {fault}.")
        return
    with transaction.atomic():
        job.succeed()
        version.accept(
            format=inspection.format,
            task=inspection.task,
            signature=signature,
            inspection=found,
            **compiled.with_room().columns(),
        )
        RegisteredModel.objects.filter(pk=version.model_id, task="").update(task=inspection.task)


def _reject(job: Job, version: ModelVersion, code: str, reason: str) -> None:
    with transaction.atomic():
        job.succeed()
        version.reject(code, reason)


def _settle_stuck() -> None:
    """Have no version wait for an inspection that ended without a verdict: try again, or reject it."""
    waiting = ModelVersion.objects.filter(state__in=(VersionState.PENDING, VersionState.INSPECTING))
    ended = waiting.filter(inspection_job__state__in=(JobState.FAILED, JobState.CANCELLED))
    for version in ended.select_related("inspection_job"):
        job = version.inspection_job
        if job is not None and job.error_code in OUR_FAULTS:
            with transaction.atomic():
                version.inspection_job = submit(INSPECT, str(version.pk), max_attempts=INSPECT_ATTEMPTS)
                version.save(update_fields=["inspection_job"])
        else:
            version.reject((job and job.error_code) or "inspection_failed", (job and job.error_message) or BROKE)
