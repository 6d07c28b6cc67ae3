"""The answers to the chunks of a batch job that are done: kept in the tenant's storage until there is a result.

A worker that is killed leaves them to the next one, which asks the model for the chunks after them only.
"""

import io
import time
from collections.abc import Iterator
from typing import Any

import msgpack
from django.db import transaction

from inference.models import BatchJob
from models_registry.blobs import keep_blobs, open_blob, store_blob
from models_registry.models import Blob
from runtimes.tabulation import Answered, Chunk
from tenants.models import Job

PART_BYTES = 8 << 20
PART_S = 5.0
KEEP_EVERY_S = 600.0  # the collector spares a blob for an hour
MOST_PERCENT = 98.0


class Parts:
    """The finished chunks of one batch job, for the worker that holds it."""

    def __init__(self, job: Job, batch: BatchJob) -> None:
        self._job, self._batch = job, batch
        stored = self._stored()
        self.known_chunks = sum(part["chunks"] for part in stored)
        self._earlier = self._read(stored)
        self._packer = msgpack.Packer()
        self._begin_part()
        self._kept_at = time.monotonic()

    def earlier(self, chunk: Chunk) -> Answered:
        """The answer that a chunk got before, chunk after chunk."""
        header, body = next(self._earlier)
        return Answered.from_frame(header, memoryview(body))

    def add(self, chunk: Chunk, answered: Answered) -> None:
        """Keep a chunk's answer; not each is stored at once.

        Raises:
            JobLost: the job was cancelled, or another worker has taken it.
        """
        header, buffers = answered.to_frame()
        packed = self._packer.pack([header, b"".join(buffers)])
        self._waiting.append(packed)
        self._bytes += len(packed)
        self._rows += chunk.rows
        self._faults += chunk.rows - chunk.asked + len(answered.faults)
        self._fraction = chunk.read_fraction
        if self._bytes >= PART_BYTES or time.monotonic() - self._begun_at >= PART_S:
            self.store()

    def store(self) -> None:
        """Store what was added since the last time, and show how far it is."""
        if not self._waiting:
            return
        blob = store_blob(io.BytesIO(b"".join(self._waiting)))
        part = {"blob": blob.pk.hex, "chunks": len(self._waiting), "rows": self._rows, "faults": self._faults}
        with transaction.atomic():
            self._batch.parts.append(part)
            self._count()
            self._batch.save(update_fields=["parts", "row_count", "fault_count"])
            self._job.report(self._fraction * MOST_PERCENT, f"{self._batch.row_count:,} rows")
        self._begin_part()
        if time.monotonic() - self._kept_at > KEEP_EVERY_S:
            keep_blobs(part["blob"] for part in self._batch.parts)
            self._kept_at = time.monotonic()

    def counted(self) -> dict[str, int]:
        """The rows and faults of all chunks, those that are not stored yet included."""
        self._count()
        return {
            "row_count": self._batch.row_count + self._rows,
            "fault_count": self._batch.fault_count + self._faults,
        }

    def _count(self) -> None:
        self._batch.row_count = sum(part["rows"] for part in self._batch.parts)
        self._batch.fault_count = sum(part["faults"] for part in self._batch.parts)

    def _begin_part(self) -> None:
        self._waiting: list[bytes] = []
        self._bytes = self._rows = self._faults = 0
        self._fraction, self._begun_at = 0.0, time.monotonic()

    def _stored(self) -> list[dict[str, Any]]:
        """The parts up to the first that is gone: the collector takes those of a job that nobody worked on for long."""
        keep_blobs(part["blob"] for part in self._batch.parts)
        keys = [part["blob"] for part in self._batch.parts]
        there = {key.hex for key in Blob.objects.filter(pk__in=keys, is_stored=True).values_list("pk", flat=True)}
        lost = next((place for place, key in enumerate(keys) if key not in there), len(keys))
        self._batch.parts = self._batch.parts[:lost]
        return list(self._batch.parts)

    @staticmethod
    def _read(stored: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bytes]]:
        for part in stored:
            with open_blob(Blob.objects.get(pk=part["blob"])) as file:
                yield from msgpack.Unpacker(file, raw=False, max_buffer_size=1 << 30)
