"""What a caller can ask for about datasets, runs and experiments."""

import time
import uuid
from typing import BinaryIO

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError, QuerySet

from common.errors import Conflict, Invalid, Throttled, TooLarge
from models_registry.blobs import IncomingFile, open_file, store_bundle
from models_registry.models import Bundle, is_name
from models_registry.quota import check_room, claim_room
from tenants import jobs
from tenants.audit import record
from tenants.job_api import await_end
from tenants.models import Job, JobState, Tenant
from tenants.scope import current_tenant
from training.execution import DATASET_PATH, DECISION_KIND, RUN_KIND
from training.models import Dataset, DatasetVersion, Experiment, Run
from training.run_requests import MAX_EXPERIMENT_CHARS, RunRequest, check
from training.tables import Preview, Table, read_preview, read_table

RETRY_AFTER_FULL_S = 30.0


def upload_dataset(
    *, name: str, file: BinaryIO, size_bytes: int, file_name: str, actor: str
) -> tuple[DatasetVersion, bool]:
    """The version that holds these bytes, and whether it is new; a new name makes a dataset.

    The file is read twice from its start: to check it, and to store it.

    Raises:
        Invalid: the name is none, or the file is not a table (with the line).
        TooLarge, Denied: it is larger than tables may be, or over the tenant's quota.
    """
    if not is_name(name):
        raise Invalid("A name is 1 to 100 of A-Z, a-z, 0-9, '.', '_', '-'.", fields={"name": name[:100]})
    check_size(size_bytes)
    check_room(size_bytes)
    file.seek(0)
    table = read_table(file)
    known = DatasetVersion.objects.filter(dataset__name=name, digest=table.digest).select_related("dataset").first()
    if known:
        return known, False
    file.seek(0)
    bundle = store_bundle([IncomingFile(path=DATASET_PATH, file=file)])
    return _add_version(name, table, bundle, file_name, actor)


def check_size(size_bytes: int) -> None:
    """Go on only if a table may have this many bytes: it is read row by row while its upload waits for the answer.

    Raises:
        TooLarge: it may not.
    """
    if size_bytes > settings.DATASET_MAX_BYTES:
        raise TooLarge(
            f"The table has {size_bytes} bytes, and at most {settings.DATASET_MAX_BYTES} are taken; "
            "the operator can raise DATASET_MAX_BYTES."
        )


@transaction.atomic
def _add_version(name: str, table: Table, bundle: Bundle, file_name: str, actor: str) -> tuple[DatasetVersion, bool]:
    # Locked, so that a delete of the dataset's last version cannot take this one along.
    dataset, _ = Dataset.objects.select_for_update().get_or_create(name=name)
    claim_room(bundle)
    version, is_new = DatasetVersion.objects.select_related("dataset").get_or_create(
        dataset=dataset,
        digest=table.digest,
        defaults={
            "bundle": bundle,
            "format": "csv",
            "file_name": file_name[:255],
            "columns": list(table.columns),
            "row_count": table.row_count,
            "size_bytes": table.size_bytes,
            "created_by": actor,
        },
    )
    if is_new:
        record(actor=actor, action="dataset.upload", target=str(version), rows=table.row_count, bytes=table.size_bytes)
    return version, is_new


def preview(version: DatasetVersion, limit: int) -> Preview:
    """The first `limit` rows of this version."""
    with open_file(version.bundle.files.select_related("blob").get(path=DATASET_PATH)) as file:
        return read_preview(file, limit)


@transaction.atomic
def delete_dataset_version(*, version: DatasetVersion, actor: str) -> None:
    """Remove a version, and its dataset with the last one.

    Raises:
        Conflict: a run used it.
    """
    _delete(Dataset.objects.filter(pk=version.dataset_id), DatasetVersion.objects.filter(pk=version.pk), actor)


@transaction.atomic
def delete_dataset(*, dataset: Dataset, actor: str) -> None:
    """Remove a dataset with all its versions, or nothing of it.

    Raises:
        Conflict: a run used one of them.
    """
    _delete(Dataset.objects.filter(pk=dataset.pk), dataset.versions.all(), actor)


def _delete(datasets: QuerySet[Dataset], versions: QuerySet[DatasetVersion], actor: str) -> None:
    """Delete the versions, then the dataset if it has none left. Both are locked: an upload may be adding a version
    (`_add_version`), and a run may be beginning to use one (`run_requests.check`)."""
    list(datasets.select_for_update())
    for version in versions.select_related("dataset").select_for_update(of=("self",)):
        try:
            version.delete()
        except ProtectedError as error:
            using = version.runs.order_by("created_at").values_list("id", flat=True)
            raise Conflict(
                f"{version} was used by {using.count()} run(s), {using[0]} the first; it is kept as their record.",
                code="in_use",
            ) from error
        record(actor=actor, action="dataset.delete", target=str(version))
    datasets.filter(versions=None).delete()


@transaction.atomic
def submit_run(*, request: RunRequest, actor: str) -> Run:
    """A queued run and its job, under one id.

    Raises:
        Invalid: it cannot be carried out; every fault is named by its field.
        Throttled: the tenant has as many open runs as it may have.
    """
    checked = check(request)
    _require_room()
    run_id = uuid.uuid4()
    run = Run.objects.create(
        id=run_id,
        job=jobs.submit(RUN_KIND, run_id.hex, job_id=run_id),
        experiment=Experiment.objects.get_or_create(name=request.experiment)[0] if request.experiment else None,
        trainer=request.trainer,
        params=checked.params,
        target=request.target,
        validation=checked.validation,
        dataset_version=checked.dataset_version,
        model_name=request.model,
        activate_if=checked.activate_if,
        created_by=actor,
    )
    record(actor=actor, action="run.submit", target=str(run), model=request.model, dataset=str(checked.dataset_version))
    return run


def _require_room() -> None:
    """Go on only if the tenant may have one more open run. Its row is locked, so that of two requests for the last
    place one gets it."""
    tenant = Tenant.objects.select_for_update(no_key=True).get(pk=current_tenant().pk)
    open_runs = Job.objects.open().filter(tenant=tenant, kind=RUN_KIND).count()
    if open_runs >= tenant.max_open_runs:
        raise Throttled(
            f"{open_runs} runs are open and this tenant may have {tenant.max_open_runs}, so 0 are left; "
            "wait for one to end, or cancel one.",
            code="too_many_open_runs",
            retry_after_s=RETRY_AFTER_FULL_S,
        )


@transaction.atomic
def cancel_run(*, run: Run, actor: str) -> None:
    """End a run that is queued or running; again is no error.

    Raises:
        Conflict: it has ended already, or is not executed here.
    """
    if run.job is None:
        raise Conflict("This run is not executed here, so it cannot be cancelled here.", code="external_run")
    was_cancelled = run.job.state == JobState.CANCELLED
    run.job.cancel()
    if not was_cancelled:
        run.write_log("cancelled")
        record(actor=actor, action="run.cancel", target=str(run))


def await_run(run: Run, wait_s: float) -> None:
    """Return once the run has ended and its activation is decided, or after `wait_s` seconds."""
    deadline = time.monotonic() + wait_s
    if run.job is not None:
        await_end(run.job, wait_s)
    if run.activate_if:
        decisions = Job.objects.filter(tenant=current_tenant(), kind=DECISION_KIND, object_id=run.pk.hex)
        for decision in decisions:
            await_end(decision, deadline - time.monotonic())


@transaction.atomic
def create_experiment(*, name: str, actor: str) -> Experiment:
    """A new experiment.

    Raises:
        Invalid: the name is empty or too long.
        Conflict: there is one of this name.
    """
    if not 1 <= len(name) <= MAX_EXPERIMENT_CHARS:
        raise Invalid(f"An experiment's name has 1 to {MAX_EXPERIMENT_CHARS} characters.", fields={"name": name[:100]})
    try:
        with transaction.atomic():
            experiment = Experiment.objects.create(name=name)
    except IntegrityError as error:
        raise Conflict(f"There is an experiment '{name}' already.", code="already_exists") from error
    record(actor=actor, action="experiment.create", target=name)
    return experiment
