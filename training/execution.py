"""What a worker does with a run: fit in a confined runner and register the version, or measure one that is there."""

import functools
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from django.conf import settings

import runtimes
from common.errors import Invalid, PlatformError, TimedOut, Unavailable
from models_registry.blobs import IncomingFile, store_bundle
from models_registry.metadata import VersionMetadata, storable_fault
from models_registry.services import register_version
from models_registry.spooling import spool_folder
from runtimes import errors as faults
from runtimes.client import FitReport, HostClient
from runtimes.trainers import TRAINERS
from tenants import jobs
from tenants.models import Job, JobLost
from tenants.scope import current_tenant
from training.activation import DECISION_ATTEMPTS, DECISION_KIND, decide_activation
from training.data import local_copy, packed_with_code
from training.decisions import keep_decision, pending
from training.evaluating import evaluate
from training.fit_watch import FitWatch, TrialPruned, finite
from training.limits import limits_now
from training.models import LIBRARY_SET, Purpose, Run
from training.queueing import RUN_KIND
from training.trials import end_pruned, end_trial, nudge_search

__all__ = ["DECISION_KIND", "RUN_KIND", "decide_activation", "train", "work"]


def work(job: Job) -> None:
    """Do what the job's run is for, and end the job."""
    purpose = Run.objects.filter(pk=job.pk).values_list("purpose", flat=True).get()
    try:
        (evaluate if purpose == Purpose.EVALUATION else train)(job)
    finally:
        nudge_search(job)


def train(job: Job) -> None:
    """Fit what the job's run asks for, register the version, and end the job: the last two in one transaction.

    A trial of a search leaves nothing but its metrics.

    Raises:
        Invalid: the data or the parameters cannot be fitted. TimedOut: the fit took longer than it may.
        Unavailable: the fit was lost on the way and may be tried again.
        JobLost: the run was cancelled, or taken by another worker.
    """
    related = ("dataset_version__bundle", "dataset_version__dataset", "code", "parent")
    run = Run.objects.select_related(*related).get(pk=job.pk)
    watch = FitWatch(job, run)
    watch.begin()
    with tempfile.TemporaryFile(dir=spool_folder()) as out:
        try:
            with _faults_as_errors(run):
                report = _fit(run, watch, out)
        except TrialPruned as pruned:
            end_pruned(job, run, pruned)
            return
        finally:
            watch.flush()
        out.seek(0)
        if run.purpose == Purpose.TRIAL:
            end_trial(job, run, report, code_digest())
        else:
            _keep(job, run, report, out)


def _fit(run: Run, watch: FitWatch, out: BinaryIO) -> FitReport:
    version = run.dataset_version
    assert version is not None  # a managed run has one, which is kept as long as the run
    client, limits = HostClient(settings.MODELS_SOCKET), limits_now()
    if run.code is not None:
        with packed_with_code(version, run.code) as packed:
            return client.fit_custom(
                params=run.params,
                target=run.target,
                validation={},
                bundle_fd=packed,
                out=out,
                format_name=version.format,
                library_set=run.tags.get(LIBRARY_SET) or "sklearn",
                limits=limits,
                on_progress=watch.on_progress,
                is_cancelled=watch.is_cancelled,
            )
    with local_copy(version) as dataset_fd:
        return client.fit(
            tenant=current_tenant().uuid.hex,
            trainer=run.trainer,
            params=run.params,
            target=run.target,
            validation=run.validation | {"importance": run.purpose != Purpose.TRIAL},  # nobody asks it of a trial
            dataset_fd=dataset_fd,
            out=out,
            format_name=version.format,
            library_set=TRAINERS[run.trainer].library_set,
            watch=watch.metric,
            limits=limits,
            on_progress=watch.on_progress,
            is_cancelled=watch.is_cancelled,
        )


@functools.cache
def code_digest() -> str:
    """SHA-256 over the code that fits: the package `runtimes`, as it is on this machine."""
    digest, folder = hashlib.sha256(), Path(runtimes.__path__[0])
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


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
    with job.writing():
        version = register_version(
            model_name=run.model_name,
            files=bundle,
            metadata=_metadata(run, report),
            actor=run.created_by,
            create=True,
            source_run=run.pk,
            metrics_measured=metrics,
            measured_on=_origin_of(run) if metrics else {},
        )
        Run.objects.filter(pk=run.pk).update(
            version=version,
            metrics=metrics,
            metrics_reported=finite(report.claimed),
            evaluation=report.evaluation.model_dump(mode="json"),
            code_digest=run.code_digest or code_digest(),
            libraries=report.libraries,
            duration_s=report.duration_s,
            peak_memory_bytes=report.peak_memory_bytes,
        )
        run.write_log(f"registered {version}: " + ", ".join(f"{key}={value:.6g}" for key, value in metrics.items()))
        if run.activate_if:
            keep_decision(run, pending(run.activate_if))
            jobs.submit(DECISION_KIND, run.pk.hex, max_attempts=DECISION_ATTEMPTS)
        job.succeed()


def _origin_of(run: Run) -> dict[str, str]:
    version = run.dataset_version
    return {"dataset": version.dataset.name, "digest": version.digest} if version else {}


def _metadata(run: Run, report: FitReport) -> VersionMetadata:
    """What is declared about the version; what of it PostgreSQL could not keep is left out."""
    signature = report.signature.to_json() if report.signature else None
    declared = {"signature": signature, "input_example": report.input_example, **report.declared}
    if run.tags.get(LIBRARY_SET):
        declared["library_set"] = run.tags[LIBRARY_SET]
    return VersionMetadata(
        params=run.params,
        metrics=finite(report.claimed),
        description=f"Trained here by {run.trainer} on {run.dataset_version}.",
        declared={name: value for name, value in declared.items() if value and not storable_fault(value)},
    )
