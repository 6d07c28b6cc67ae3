"""What a worker does with a training job: fit in a confined runner, register the version, decide whether it serves."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import BinaryIO

from django.conf import settings
from django.db import transaction

from common.errors import Conflict, Invalid, PlatformError, TimedOut, Unavailable
from models_registry.blobs import IncomingFile, open_file, store_bundle
from models_registry.history import NOTHING
from models_registry.metadata import VersionMetadata, storable_fault
from models_registry.models import Deployment, ModelVersion, VersionState
from models_registry.services import activate, register_version
from models_registry.spooling import spool_folder
from runtimes import errors as faults
from runtimes.client import FitReport, HostClient
from runtimes.limits import GIB, Limits
from runtimes.trainers import TRAINERS
from tenants import jobs
from tenants.models import Job, JobLost
from tenants.scope import current_tenant
from training.decisions import Decision, decide, pending
from training.fit_watch import FitWatch, finite
from training.models import DatasetVersion, Run

RUN_KIND = "training.run"
DECISION_KIND = "training.decide_activation"
DATASET_PATH = "data.csv"  # of every dataset's bundle, so that the same bytes are the same bundle
FIT_LIMITS = Limits(memory_bytes=4 * GIB, cpu_seconds=2 * 3600, fit_seconds=3600.0)
COPY_BYTES = 1 << 20

DECISION_ATTEMPTS = 60
DECISION_RETRY = timedelta(seconds=5)
LONGEST_RETRY = timedelta(minutes=1)
INSPECTION_WAIT_S = 5.0
LOOK_EVERY_S = 0.2


def train(job: Job) -> None:
    """Fit what the job's run asks for, register the version, and end the job: the last two in one transaction.

    Raises:
        Invalid: the data or the parameters cannot be fitted. TimedOut: the fit took longer than it may.
        Unavailable: the fit was lost on the way and may be tried again.
        JobLost: the run was cancelled, or taken by another worker.
    """
    run = Run.objects.select_related("dataset_version__bundle", "dataset_version__dataset").get(pk=job.pk)
    watch = FitWatch(job, run)
    watch.begin()
    assert run.dataset_version is not None  # a managed run has one, which is kept as long as the run
    with local_copy(run.dataset_version) as dataset, tempfile.TemporaryFile(dir=spool_folder()) as out:
        with _faults_as_errors(run):
            report = _fit(run, watch, dataset, out)
        out.seek(0)
        _keep(job, run, report, out)


@contextmanager
def local_copy(version: DatasetVersion) -> Iterator[int]:
    """A read-only descriptor of the dataset's verified bytes, from an unnamed file that is gone after the block."""
    with tempfile.TemporaryFile(dir=spool_folder()) as copy:
        with open_file(version.bundle.files.select_related("blob").get(path=DATASET_PATH)) as source:
            shutil.copyfileobj(source, copy, COPY_BYTES)
        copy.flush()
        # Opened once more, so that what goes to the runner cannot be written to.
        descriptor = os.open(f"/proc/self/fd/{copy.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _fit(run: Run, watch: FitWatch, dataset_fd: int, out: BinaryIO) -> FitReport:
    return HostClient(settings.MODELS_SOCKET).fit(
        tenant=current_tenant().uuid.hex,
        trainer=run.trainer,
        params=run.params,
        target=run.target,
        validation=run.validation,
        format_name=run.dataset_version.format if run.dataset_version else "csv",
        library_set=TRAINERS[run.trainer].library_set,
        dataset_fd=dataset_fd,
        out=out,
        limits=FIT_LIMITS,
        on_progress=watch.on_progress,
        is_cancelled=watch.is_cancelled,
    )


@contextmanager
def _faults_as_errors(run: Run) -> Iterator[None]:
    """Turn what a fit raises into an error that ends its job, or into one that has it tried again."""
    try:
        yield
    except faults.Cancelled as fault:
        raise JobLost from fault
    except faults.RuntimeFault as fault:
        run.write_log(f"{fault.code}: {fault.message}")
        raise _error_of(fault) from fault


def _error_of(fault: faults.RuntimeFault) -> PlatformError:
    match fault:
        case faults.DeadlineExceeded():
            return TimedOut(f"The fit took longer than it may: {fault.message}", code="fit_too_long")
        case faults.ModelError() | faults.ArtifactRejected() | faults.InvalidSignature():
            return Invalid(f"The model could not be fitted: {fault.message}", code=fault.code)
        case faults.RunnerDied():
            return Unavailable(f"The fit was killed: {fault.message}", code=fault.code)
        case _:
            return Unavailable(fault.message, code=fault.code)


def _keep(job: Job, run: Run, report: FitReport, artifact: BinaryIO) -> None:
    """Register the version, note what the run came to and end the job, all of it or nothing.

    The artifact is stored before: a blob's row must stand before its bytes. Of a job that was lost meanwhile it is
    left to the collector.
    """
    job.report(99, "registering")
    metrics = finite(report.metrics)
    bundle = store_bundle([IncomingFile(path=report.artifact_name, file=artifact)])
    with transaction.atomic():
        version = register_version(
            model_name=run.model_name,
            files=bundle,
            metadata=_metadata(run, report),
            actor=run.created_by,
            create=True,
            source_run=run.pk,
            metrics_measured=metrics,
            measured_on=_origin_of(run),
        )
        Run.objects.filter(pk=run.pk).update(
            version=version,
            metrics=metrics,
            libraries=report.libraries,
            duration_s=report.duration_s,
            peak_memory_bytes=report.peak_memory_bytes,
            activation_decision=pending(run.activate_if) if run.activate_if else None,
        )
        run.write_log(f"registered {version}: " + ", ".join(f"{key}={value:.6g}" for key, value in metrics.items()))
        if run.activate_if:
            jobs.submit(DECISION_KIND, run.pk.hex, max_attempts=DECISION_ATTEMPTS)
        job.succeed()


def _origin_of(run: Run) -> dict[str, str]:
    version = run.dataset_version
    return {"dataset": version.dataset.name, "digest": version.digest} if version else {}


def _metadata(run: Run, report: FitReport) -> VersionMetadata:
    """What is declared about the version; what of it PostgreSQL could not keep is left out."""
    signature = report.signature.to_json() if report.signature else None
    declared = {"signature": signature, "input_example": report.input_example, **report.declared}
    return VersionMetadata(
        params=run.params,
        description=f"Trained here by {run.trainer} on {run.dataset_version}.",
        declared={name: value for name, value in declared.items() if value and not storable_fault(value)},
    )


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
        Run.objects.filter(pk=run.pk).update(activation_decision=decision.to_json())
        run.write_log(decision.reason)
        job.succeed()
