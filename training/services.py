"""What a caller can ask for about datasets, runs and experiments."""

import time
import uuid
from typing import BinaryIO

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import ProtectedError, QuerySet

from common.errors import Conflict, Invalid, NotFound, TooLarge
from models_registry.blobs import IncomingFile, open_file, store_bundle
from models_registry.models import Bundle, ModelVersion, is_name
from models_registry.quota import check_room, claim_room
from models_registry.stored_tables import StoredTable
from runtimes.profiles import Profile
from tenants import jobs
from tenants.audit import record
from tenants.job_api import await_end
from tenants.models import Job, JobState
from tenants.scope import current_tenant
from training.activation import DECISION_KIND
from training.limits import require_dataset_room, require_open_run
from training.models import CUSTOM, Dataset, DatasetState, DatasetVersion, Experiment, Purpose, Run, path_of
from training.profiling import PROFILE_ATTEMPTS, PROFILE_KIND
from training.queueing import queue_run
from training.run_requests import MAX_EXPERIMENT_CHARS, CheckedRun, RunRequest, check, checked_dataset
from training.search_requests import SearchRequest, check_search
from training.searching import SEARCH_KIND, cancel_trials
from training.tables import IMAGES, READ_LATER, Preview, Table, read_preview, read_table

MEASURED = ("classification", "regression")  # the tasks of what is compared with a table


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
    table = read_table(file)
    known = DatasetVersion.objects.filter(dataset__name=name, digest=table.digest).select_related("dataset").first()
    if known:
        return known, False
    require_dataset_room(size_bytes)
    file.seek(0)
    bundle = store_bundle([IncomingFile(path=path_of(table.format), file=file)])
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
    if not dataset.versions.filter(digest=table.digest).exists():
        require_dataset_room(table.size_bytes)
    version, is_new = DatasetVersion.objects.select_related("dataset").get_or_create(
        dataset=dataset,
        digest=table.digest,
        defaults={
            "bundle": bundle,
            "format": table.format,
            "state": DatasetState.PROFILING if table.format in READ_LATER else DatasetState.READY,
            "file_name": file_name[:255],
            "columns": list(table.columns),
            "row_count": table.row_count,
            "size_bytes": table.size_bytes,
            "created_by": actor,
        },
    )
    if is_new:
        jobs.submit(PROFILE_KIND, version.pk.hex, max_attempts=PROFILE_ATTEMPTS)
        record(actor=actor, action="dataset.upload", target=str(version), rows=table.row_count, bytes=table.size_bytes)
    return version, is_new


def preview(version: DatasetVersion, limit: int) -> Preview:
    """The first `limit` rows of this version; those of a Parquet file are in its profile.

    Raises:
        Conflict: it has no profile yet.
    """
    if version.format in READ_LATER:
        return _sampled(version, limit)
    with open_file(version.bundle.files.select_related("blob").get(path=version.path)) as file:
        return read_preview(file, limit, version.format)


def _sampled(version: DatasetVersion, limit: int) -> Preview:
    sample = profile_of(version).sample
    rows = [["" if cell is None else cell for cell in row] for row in sample.rows[:limit]]
    left_out = max(0, len(version.columns) - len(sample.columns))
    return Preview(tuple(sample.columns), rows, version.row_count <= limit, left_out)


def profile_of(version: DatasetVersion) -> Profile:
    """What a confined runner found in this version.

    Raises:
        Conflict: it is not made yet, or cannot be.
    """
    if version.profile is None:
        if version.rejection_reason:
            raise Conflict(f"It has no profile: {version.rejection_reason}", code="not_profiled")
        raise Conflict("Its profile is still being made; ask again with `wait`.", code="profiling")
    return Profile.model_validate(version.profile)


def await_profile(version: DatasetVersion, wait_s: float) -> None:
    """Return once the version's profile is made or refused, or after `wait_s` seconds."""
    profiles = Job.objects.filter(tenant=current_tenant(), kind=PROFILE_KIND, object_id=version.pk.hex)
    for job in profiles:
        await_end(job, wait_s)
    version.refresh_from_db(fields=["state", "columns", "row_count", "profile", "rejection_reason"])


def stored_table(name: str) -> StoredTable:
    """The newest version of this dataset, as other apps take it.

    Raises:
        NotFound: there is no such dataset.
    """
    versions = DatasetVersion.objects.filter(dataset__name=name).select_related("bundle", "dataset")
    newest = versions.order_by("-created_at", "-pk").first()
    if newest is None:
        raise NotFound(f"There is no dataset '{name[:100]}'.")
    if newest.format == IMAGES:
        raise Invalid(f"The dataset '{name[:100]}' holds images, and this takes a table.", fields={"dataset": "images"})
    return StoredTable(newest.bundle, newest.path, newest.format, str(newest), newest.file_name)


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
def submit_run(*, request: RunRequest, actor: str, code: Bundle | None = None, group: uuid.UUID | None = None) -> Run:
    """A queued run and its job, under one id.

    code: the program of a custom trainer (`programs.keep_program`). group: of runs that an operator began together.

    Raises:
        Invalid: it cannot be carried out; every fault is named by its field.
        Throttled: the tenant has as many open runs as it may have.
    """
    if (request.trainer == CUSTOM) != (code is not None):
        raise Invalid(
            "A program and the trainer 'custom' come together.",
            fields={"trainer" if code else "code": "send the run as multipart, with the program's zip as `code`"},
        )
    checked = check(request)
    require_open_run()
    if code is not None:
        claim_room(code)
    run = queue_run(request, checked, actor=actor, code=code, group=group)
    record(actor=actor, action="run.submit", target=str(run), model=request.model, dataset=str(checked.dataset_version))
    return run


@transaction.atomic
def submit_run_once(*, request: RunRequest, actor: str, group: uuid.UUID) -> Run:
    """The tenant's run of this group: the one that is there, or a new one; of two requests at once, one makes it.

    Raises:
        As `submit_run` does.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{current_tenant().uuid}/{group}"])
    known = Run.objects.filter(group=group).select_related("job", "version").first()
    return known or submit_run(request=request, actor=actor, group=group)


@transaction.atomic
def submit_search(*, request: SearchRequest, actor: str) -> Run:
    """A queued search; its trials are queued by its job.

    Raises:
        Invalid: it cannot be carried out; every fault is named by its field.
        Throttled: the tenant has as many open runs as it may have.
    """
    checked = check_search(request)
    require_open_run()
    run = queue_run(
        request.run, checked.run, actor=actor, purpose=Purpose.SEARCH, kind=SEARCH_KIND, search=checked.search
    )
    record(
        actor=actor, action="search.submit", target=str(run), model=request.run.model, trials=checked.search["trials"]
    )
    return run


@transaction.atomic
def submit_evaluation(*, version: ModelVersion, dataset: str, digest: str, target: str, actor: str) -> Run:
    """A queued run that measures a version on a dataset.

    Raises:
        Invalid: there is no such dataset or column, or the version's task has no metrics.
        Conflict: the version is not ready.
        Throttled: the tenant has as many open runs as it may have.
    """
    if not version.is_ready:
        raise Conflict(f"{version} is {version.state}, not ready, so it cannot be measured.", code="version_not_ready")
    faults: dict[str, str] = {}
    table = checked_dataset(dataset, digest, target, faults)
    if version.task not in MEASURED:
        faults["version"] = "What it predicts is neither classes nor numbers, so there is nothing to measure."
    if table is not None and table.format == IMAGES:
        faults["dataset"] = "It holds images, and versions are measured on tables."
    if faults or table is None:
        raise Invalid("This version cannot be measured as it was asked for; `fields` says why.", fields=faults)
    require_open_run()
    request = RunRequest(trainer="", dataset=dataset, target=target, model=version.model.name)
    run = queue_run(request, CheckedRun(table, {}, {}, None), actor=actor, purpose=Purpose.EVALUATION)
    Run.objects.filter(pk=run.pk).update(version=version)
    run.version = version
    record(actor=actor, action="version.evaluate", target=str(version), run=str(run.pk), dataset=str(table))
    return run


@transaction.atomic
def cancel_run(*, run: Run, actor: str) -> None:
    """End a run that is queued or running, a search with all its trials; again is no error.

    Raises:
        Conflict: it has ended already, or is not executed here.
    """
    if run.job is None:
        raise Conflict("This run is not executed here, so it cannot be cancelled here.", code="external_run")
    was_cancelled = run.job.state == JobState.CANCELLED
    run.job.cancel()
    cancel_trials(run.pk)
    if not was_cancelled:
        run.write_log("cancelled")
        record(actor=actor, action="run.cancel", target=str(run))


def await_run(run: Run, wait_s: float) -> None:
    """Return once the run has ended and its activation is decided, or after `wait_s` seconds."""
    deadline = time.monotonic() + wait_s
    if run.job is not None:
        await_end(run.job, wait_s)
    if run.activate_if:
        best = run.trials.filter(purpose=Purpose.FIT).values_list("pk", flat=True)  # a search's
        deciding = [run.pk.hex, *(pk.hex for pk in best)]
        decisions = Job.objects.filter(tenant=current_tenant(), kind=DECISION_KIND, object_id__in=deciding)
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
