"""What a caller can ask for about batch jobs."""

import uuid
from pathlib import PurePath
from typing import BinaryIO

from django.conf import settings
from django.db import transaction
from django.utils.module_loading import import_string

from common.errors import Conflict, Invalid, NotFound
from inference.batch.work import ATTEMPTS, KIND
from inference.models import BatchJob
from inference.routing import Route
from models_registry.blobs import IncomingFile, store_bundle
from models_registry.models import BundleFile
from models_registry.quota import check_room, claim_room
from models_registry.services import hold_version
from models_registry.stored_tables import StoredTable
from tenants import jobs
from tenants.audit import record
from tenants.models import JobState

FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
MOST_OPEN = 20


def table_of_dataset(name: str) -> StoredTable:
    """The newest version of a dataset; the app that has datasets is above this one, and named by the settings.

    Raises:
        NotFound: there is no such dataset.
    """
    table: StoredTable = import_string(settings.DATASET_TABLES)(name)
    return table


def store_table(file: BinaryIO, *, size_bytes: int, file_name: str, format_name: str = "") -> StoredTable:
    """An uploaded table, stored. format_name: where the file's name does not say it.

    Raises:
        Invalid: the format is none that tables have. TooLarge, Denied: over the tenant's quota.
    """
    known = format_name or FORMATS.get(PurePath(file_name).suffix.lower(), "")
    if known not in FORMATS.values():
        told = "is none of csv, jsonl, parquet" if known else "say csv, jsonl or parquet: the file's name does not tell"
        raise Invalid("Tables are CSV, JSON Lines or Parquet.", fields={"format": told})
    check_room(size_bytes)
    path = f"table.{known}"
    bundle = store_bundle([IncomingFile(path=path, file=file)])
    return StoredTable(bundle, path, known, "", PurePath(file_name).name[:255] or path)


@transaction.atomic
def submit_batch(*, route: Route, table: StoredTable, probabilities: bool, actor: str) -> BatchJob:
    """Queue the prediction of a table by the version that the route names now.

    Raises:
        Conflict: the version was deleted meanwhile. Throttled: the tenant has as many open ones as it may have.
        TooLarge, Denied: the table is over the tenant's quota.
    """
    hold_version(route.version.pk, f"Version {route.version.number} of {route.model_name}")
    jobs.require_room(KIND, MOST_OPEN, "batch jobs")
    claim_room(table.bundle)
    batch_id = uuid.uuid4()
    batch = BatchJob.objects.create(
        id=batch_id,
        job=jobs.submit(KIND, batch_id.hex, job_id=batch_id, max_attempts=ATTEMPTS),
        version_id=route.version.pk,
        model_name=route.model_name,
        version_number=route.version.number,
        table=table.bundle,
        table_path=table.path,
        format=table.format,
        dataset=table.name,
        file_name=table.file_name,
        probabilities=probabilities,
        created_by=actor,
    )
    record(actor=actor, action="batch.submit", target=str(batch), bytes=table.bundle.size_bytes)
    return batch


@transaction.atomic
def cancel_batch(*, batch: BatchJob, actor: str) -> None:
    """End a batch job that is queued or running; again is no error.

    Raises:
        Conflict: it has ended already.
    """
    was_cancelled = batch.job.state == JobState.CANCELLED
    batch.job.cancel()
    if not was_cancelled:
        record(actor=actor, action="batch.cancel", target=str(batch))


def result_file(batch: BatchJob) -> BundleFile:
    """The table with its predictions.

    Raises:
        Conflict: there is none yet, or there will be none. NotFound: it is no longer kept.
    """
    if batch.result is None:
        raise Conflict(f"The batch job is {batch.job.state}; it has no result.", code="no_result")
    file = batch.result.files.select_related("blob").first()
    if file is None:
        raise NotFound("The result is no longer kept.")
    return file
