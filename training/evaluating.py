"""Measuring a version on a dataset: its metrics are then *measured*, beside those that its uploader reported."""

import time

from django.conf import settings

from common.errors import Invalid, TimedOut, Unavailable
from models_registry.loading import load_request, pool_key
from models_registry.models import ModelVersion
from models_registry.services import change_version
from runtimes import errors as faults
from runtimes.client import HostClient
from runtimes.protocol import Prediction
from runtimes.signature import Batch, Signature
from runtimes.table_work import Score
from tenants.models import Job, JobLost
from tenants.scope import current_tenant
from training.data import local_copy
from training.fit_watch import FitWatch, finite
from training.limits import limits_now
from training.models import Run

PREDICT_S = 60.0
EVALUATION_FAULTS = (faults.ModelError, faults.ArtifactRejected, faults.InvalidSignature)


def evaluate(job: Job) -> None:
    """Measure the run's version and end the job, with the metrics in one transaction.

    Raises:
        Invalid: the dataset does not fit the version. TimedOut: it took longer than it may.
        Unavailable: it may be tried again. JobLost: it was cancelled, or taken by another worker.
    """
    related = ("dataset_version__bundle", "dataset_version__dataset", "version__bundle", "version__model")
    run = Run.objects.select_related(*related).get(pk=job.pk)
    watch = FitWatch(job, run)
    watch.begin()
    if run.version is None:
        raise Invalid("The version was deleted before it could be measured.", code="version_deleted")
    try:
        score = _score(run, run.version, watch)
    except faults.Cancelled as fault:
        raise JobLost from fault
    except faults.DeadlineExceeded as fault:
        raise TimedOut(f"It took longer than it may: {fault.message}", code="evaluation_too_long") from fault
    except EVALUATION_FAULTS as fault:
        raise Invalid(f"The version could not be measured: {fault.message}", code=fault.code) from fault
    except faults.RuntimeFault as fault:
        raise Unavailable(fault.message, code=fault.code) from fault
    finally:
        watch.flush()
    _keep(job, run, run.version, score)


def _score(run: Run, version: ModelVersion, watch: FitWatch) -> Score:
    assert run.dataset_version is not None
    client = HostClient(settings.MODELS_SOCKET)
    limits = limits_now()
    deadline = time.monotonic() + limits.fit_seconds
    runner = client.runner(pool_key(current_tenant(), version), lambda: load_request(version), limits.fit_seconds)
    has_probabilities = bool((version.signature or {}).get("classes")) and version.task == "classification"

    def predict(batch: Batch) -> Prediction:
        nonlocal has_probabilities
        left_s = max(0.1, min(PREDICT_S, deadline - time.monotonic()))
        if has_probabilities:
            try:
                return runner.predict(batch, deadline_s=left_s, probabilities=True)
            except faults.ModelError:
                has_probabilities = False  # not every classifier has them
        return runner.predict(batch, deadline_s=left_s)

    with local_copy(run.dataset_version) as dataset_fd:
        return client.score(
            dataset_fd=dataset_fd,
            format_name=run.dataset_version.format,
            target=run.target,
            task="regression" if version.task == "regression" else "classification",
            signature=Signature.from_json(version.signature),
            predict=predict,
            limits=limits,
            on_progress=watch.on_progress,
            is_cancelled=watch.is_cancelled,
        )


def _keep(job: Job, run: Run, version: ModelVersion, score: Score) -> None:
    metrics = finite(score.evaluation.metrics)
    dataset = run.dataset_version
    assert dataset is not None
    with job.writing():
        change_version(
            version=version,
            actor=run.created_by,
            metrics_measured=metrics,
            measured_on={"dataset": dataset.dataset.name, "digest": dataset.digest},
        )
        Run.objects.filter(pk=run.pk).update(
            metrics=metrics,
            evaluation=score.evaluation.model_dump(mode="json"),
            libraries=score.libraries,
            duration_s=score.duration_s,
            peak_memory_bytes=score.peak_memory_bytes,
        )
        run.write_log(f"measured {version}: " + ", ".join(f"{key}={value:.6g}" for key, value in metrics.items()))
        job.succeed()
