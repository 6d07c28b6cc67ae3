"""What a worker does with a batch job: predict its table chunk by chunk, and store the table with its predictions."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import PurePath
from typing import BinaryIO

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from common.errors import Conflict, Invalid, PlatformError, TimedOut, TooLarge, Unavailable
from common.seats import Seats
from inference.batch.asking import Asker
from inference.batch.parts import Parts
from inference.models import BatchJob
from inference.served import Served
from models_registry.blobs import IncomingFile, local_copy, store_bundle
from models_registry.quota import claim_room
from models_registry.spooling import spool_folder
from runtimes import errors as faults
from runtimes.client import HostClient
from runtimes.limits import GIB, Limits
from runtimes.tabulation import Answered, Chunk, tabulate
from tenants.models import Job, JobLost, JobState, TenantState

KIND = "inference.batch"
LONG_WORK = (KIND, "documents.read", "documents.help")  # what takes turns on worker-batch, in whichever app
ATTEMPTS = 20  # each goes on from where the one before came to
ALL, AGAIN_SOON = "all", timedelta(seconds=2)
LOOK_EVERY_S = 1.0
SLICE_S = 30.0
LIMITS = Limits(memory_bytes=2 * GIB, cpu_seconds=6 * 3600, fit_seconds=24 * 3600.0)
RESULT_FACTOR, RESULT_ADDED_BYTES = 8, GIB

SEATS = Seats()  # of this process: half of its threads, so that who waits for one prediction finds the other half


class TurnOver(Exception):
    """Others wait for a turn; the job goes on after theirs."""


def predict_table(job: Job) -> None:
    """Predict the table of the job's batch, a turn at a time: one batch of a tenant goes on at once.

    Raises:
        Conflict: the version was deleted. Invalid: the file is no table that the model takes.
        Unavailable: a part of the platform is away; the job may go on later.
        JobLost: the job was cancelled, or taken by another worker.
    """
    with SEATS.seat(ALL, most_each=max(1, settings.BATCH_THREADS // 2)) as is_seated:
        if not is_seated or Job.objects.ahead_of(job).exists():
            job.postpone(AGAIN_SOON)
            return
        try:
            _Turn(job).go_on()
        except TurnOver:
            job.postpone(timedelta())


class _Turn:
    """One worker's turn at a batch job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._batch = BatchJob.objects.select_related("version", "table").get(pk=job.pk)
        if self._batch.version is None:
            raise Conflict("The version was deleted while the job waited.", code="version_deleted")
        self._version = Served.of(self._batch.version)
        self._looked_at = time.monotonic()
        self._is_over = False

    def go_on(self) -> None:
        """Predict what is left of the table, and end the job with its result."""
        batch = self._batch
        self._job.report(self._job.progress_percent, self._job.progress_stage or "reading")
        self._parts = Parts(self._job, batch)
        self._asker = Asker(self._version, probabilities=batch.probabilities, is_over=self._nobody_wants_it)
        source = batch.table.files.select_related("blob").get(path=batch.table_path)
        with local_copy(source) as table_fd, tempfile.TemporaryFile(dir=spool_folder()) as out:
            self._began_at = time.monotonic()
            self._turn_until = self._began_at + SLICE_S
            with _faults_as_errors(), self._kept_on_failure():
                self._tabulate(table_fd, out, source.blob.size_bytes)
            out.seek(0)
            self._keep(out)

    def _tabulate(self, table_fd: int, out: BinaryIO, size_bytes: int) -> None:
        tabulate(
            HostClient(settings.MODELS_SOCKET),
            table_fd=table_fd,
            format_name=self._batch.format,
            signature=self._version.signature,
            probabilities=self._batch.probabilities,
            known=self._parts.known_chunks,
            answer=self._answer,
            out=out,
            limits=_limits(size_bytes),
            is_cancelled=self._nobody_wants_it,
        )

    def _answer(self, chunk: Chunk) -> Answered:
        if chunk.number < self._parts.known_chunks:
            now = time.monotonic()
            self._turn_until = now + max(SLICE_S, 4 * (now - self._began_at))
            return self._parts.earlier(chunk)
        answered = self._asker.answer(chunk)
        self._parts.add(chunk, answered)
        if self._is_turn_over():
            raise TurnOver
        return answered

    def _is_turn_over(self) -> bool:
        """Whether others wait, and this has had its turn: longer, the longer it took to come back to where it was."""
        now = time.monotonic()
        if now < self._turn_until:
            return False
        self._turn_until = now + LOOK_EVERY_S
        return do_others_wait()

    def _nobody_wants_it(self) -> bool:
        """Whether the job was cancelled or taken; asked often, looked up once a second."""
        now = time.monotonic()
        if not self._is_over and now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            try:
                self._job.renew()
            except JobLost:
                self._is_over = True
        return self._is_over

    @contextmanager
    def _kept_on_failure(self) -> Iterator[None]:
        """Store what was done since the last part, so that whoever goes on has it."""
        try:
            yield
        except (Unavailable, TurnOver, faults.HostUnavailable, faults.RunnerDied):
            self._parts.store()
            raise

    def _keep(self, table: BinaryIO) -> None:
        """Store the result and end the job, both or none of it."""
        self._job.report(99, "storing")
        bundle = store_bundle([IncomingFile(path=result_name(self._batch), file=table)])
        with transaction.atomic():
            claim_room(bundle)
            BatchJob.objects.filter(pk=self._batch.pk).update(result=bundle, parts=[], **self._parts.counted())
            self._job.succeed()


def result_name(batch: BatchJob) -> str:
    """What the result's file is called."""
    return f"{PurePath(batch.file_name).stem[:200] or 'table'}-predicted.{batch.format}"


def do_others_wait() -> bool:
    """Whether another tenant, none of whose long work on this queue goes on now, has some that waits."""
    now = timezone.now()
    going_on = Job.objects.filter(kind__in=LONG_WORK, state=JobState.RUNNING, lease_until__gt=now).values("tenant")
    waiting = Job.objects.claimable(now).filter(kind__in=LONG_WORK, tenant__state=TenantState.ACTIVE)
    return waiting.exclude(tenant__in=going_on).exists()


def _limits(size_bytes: int) -> Limits:
    return Limits.from_json(LIMITS.to_json() | {"artifact_bytes": RESULT_FACTOR * size_bytes + RESULT_ADDED_BYTES})


@contextmanager
def _faults_as_errors() -> Iterator[None]:
    """Turn what the runner that reads the table raises into an error that ends the job, or one that has it go on."""
    try:
        yield
    except faults.Cancelled as fault:
        raise JobLost from fault
    except faults.RuntimeFault as fault:
        raise _error_of(fault) from fault


def _error_of(fault: faults.RuntimeFault) -> PlatformError:
    match fault:
        case faults.DeadlineExceeded():
            return TimedOut(f"Reading the table took longer than it may: {fault.message}", code="batch_too_long")
        case faults.ArtifactRejected(code="result_too_large"):
            return TooLarge(fault.reason, code=fault.code)
        case faults.ModelError() | faults.ArtifactRejected() | faults.InvalidSignature():
            return Invalid(f"The table cannot be predicted: {fault.message}", code=fault.code)
        case _:
            return Unavailable(fault.message, code=fault.code)
