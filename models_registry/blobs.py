"""Files of the current tenant, kept once each: stored as they stream in, verified as they stream out, collected later.

What makes the collector safe beside uploads: it takes only rows that nobody touched for a while, whoever uses a row
touches it first by a conditional UPDATE, and one that finds no row starts afresh.
"""

import hashlib
import io
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, Any, BinaryIO

from django.core.files import File
from django.core.files.storage import storages
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q, Sum
from django.utils import timezone

from common.errors import Invalid, PlatformError, Unavailable
from models_registry.models import Blob, Bundle, BundleFile
from models_registry.paths import check_paths
from models_registry.spooling import spool_folder
from tenants.scope import current_tenant

log = logging.getLogger(__name__)

GRACE = timedelta(hours=1)
READ_BYTES = 1 << 20
SWEEP_BATCH = 500


@dataclass(frozen=True)
class IncomingFile:
    """A file to be stored: its path in the bundle, and its bytes from the present position on. The caller closes it."""

    path: str
    file: BinaryIO


class CorruptFile(Unavailable):
    """The storage gave other bytes than were stored."""

    code = "corrupt_file"


def store_bundle(files: Iterable[IncomingFile]) -> Bundle:
    """The bundle of these files, their bytes stored and safe from the collector for an hour.

    Each file is read once, in order. Not to be called inside a transaction: a blob's row must stand before its bytes.

    Raises:
        Invalid: no file, or a path that no bundle may have.
        Unavailable: the storage failed, or took longer than the collector waits.
    """
    stored = [(incoming.path, _store(incoming.file)) for incoming in files]
    if not stored:
        raise Invalid("Send at least one file.", code="no_file", fields={"file": "is missing"})
    check_paths(path for path, _ in stored)
    return _tie(dict(stored))


def store_blob(file: BinaryIO) -> Blob:
    """The stored blob of these bytes, in no bundle: safe from the collector for an hour after it was last kept.

    Raises:
        Unavailable: the storage failed, or took longer than the collector waits.
    """
    return _store(file)


def keep_blobs(keys: Iterable[Any]) -> None:
    """Have the collector spare these blobs for an hour; those that it took already stay gone."""
    Blob.objects.filter(pk__in=list(keys), is_stored=True).update(touched_at=timezone.now())


def open_file(bundle_file: BundleFile) -> BinaryIO:
    """The file's bytes as a stream, as `open_blob` gives it."""
    return open_blob(bundle_file.blob)


@contextmanager
def local_copy(bundle_file: BundleFile) -> Iterator[int]:
    """A read-only descriptor of the file's verified bytes, from an unnamed file that is gone after the block."""
    with tempfile.TemporaryFile(dir=spool_folder()) as copy:
        with open_file(bundle_file) as source:
            shutil.copyfileobj(source, copy, READ_BYTES)
        with read_only(copy) as descriptor:
            yield descriptor


@contextmanager
def read_only(file: IO[bytes]) -> Iterator[int]:
    """A descriptor of what was written, opened once more, so that whoever gets it cannot write to the file."""
    file.flush()
    descriptor = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_blob(blob: Blob) -> BinaryIO:
    """The blob's bytes as a stream that ends only if they are the bytes that were stored.

    The last piece is handed out after the hash was checked, so a reader who got them all has the right ones.

    Raises (here or while reading):
        CorruptFile: the bytes are other ones.
        Unavailable: the storage failed.
    """
    with storage_faults(blob.storage_alias):
        try:
            source = storages[blob.storage_alias].open(name_of(blob), "rb")
        except FileNotFoundError as error:
            raise _corrupt(blob) from error
    return io.BufferedReader(VerifiedReader(source, blob), READ_BYTES)


def name_of(blob: Blob) -> str:
    """The blob's name in its storage: below the tenant's folder, and never used again, unlike its content."""
    return f"{current_tenant().tenant_id}/{blob.id.hex[:2]}/{blob.id.hex}"


@contextmanager
def storage_faults(alias: str) -> Iterator[None]:
    """Turn whatever a storage raises into Unavailable: each backend has exceptions of its own."""
    try:
        yield
    except PlatformError:
        raise
    except Exception as error:
        log.exception("storage_failed", extra={"storage": alias, "tenant": current_tenant().tenant_id})
        raise Unavailable(
            f"The storage '{alias}' does not work at the moment; try again.",
            code="storage_unavailable",
            retry_after_s=5,
        ) from error


class HashingReader(io.RawIOBase):
    """Passes a file on, once and in order, and knows its hash and size at the end."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__()
        self._source = source
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """As many bytes as were asked for, fewer only at the end: S3 takes a short read for the end."""
        chunks, left = [], size
        while left != 0 and (chunk := self._source.read(left)):
            self._hash.update(chunk)
            self.size_bytes += len(chunk)
            chunks.append(chunk)
            left = left - len(chunk) if size >= 0 else -1
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class VerifiedReader(io.RawIOBase):
    """Reads a stored blob and fails before its last piece is handed out if the bytes are not those that were stored."""

    def __init__(self, source: Any, blob: Blob) -> None:
        super().__init__()
        self._source = source
        self._blob = blob
        self._hash = hashlib.sha256()
        self._left = blob.size_bytes
        self._is_checked = self._has_failed = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._has_failed:  # a reader that goes on after the error must not find a plain end
            raise self._failure()
        view = memoryview(buffer).cast("B")
        chunk = self._read(min(len(view), self._left))
        view[: len(chunk)] = chunk
        self._hash.update(chunk)
        self._left -= len(chunk)
        if self._left == 0 and not self._is_checked:
            self._check()
        return len(chunk)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()

    def _read(self, size: int) -> bytes:
        with storage_faults(self._blob.storage_alias):
            chunk = bytes(self._source.read(size)) if size else b""
        if size and not chunk:
            raise self._failure()
        return chunk

    def _check(self) -> None:
        with storage_faults(self._blob.storage_alias):
            rest = self._source.read(1)
        if rest or self._hash.hexdigest() != self._blob.sha256:
            raise self._failure()
        self._is_checked = True

    def _failure(self) -> CorruptFile:
        self._has_failed = True
        return _corrupt(self._blob)


def _corrupt(blob: Blob) -> CorruptFile:
    log.error("blob_corrupt", extra={"sha256": blob.sha256, "storage": blob.storage_alias})
    return CorruptFile(
        f"The storage '{blob.storage_alias}' does not have the bytes that were stored; tell the operator."
    )


def _store(file: BinaryIO) -> Blob:
    """The stored blob of these bytes: a new one, or the one that has them already."""
    alias = current_tenant().storage_alias
    with transaction.atomic(durable=True):
        blob = Blob.objects.create(storage_alias=alias)
    reader = HashingReader(file)
    try:
        with storage_faults(alias):
            _save(blob, reader)
        return _settle(blob, reader.sha256, reader.size_bytes)
    except Exception:
        _discard(blob)
        raise


def _save(blob: Blob, reader: HashingReader) -> None:
    name = name_of(blob)
    saved = storages[blob.storage_alias].save(name, File(reader))  # type: ignore[arg-type]
    if saved != name:
        raise OSError(f"the storage saved {name} as {saved}, where nobody would find it")


def _settle(blob: Blob, sha256: str, size_bytes: int) -> Blob:
    """Have the incoming blob stored, or discard it in favour of the one that has its bytes already."""
    twins = Blob.objects.filter(sha256=sha256, storage_alias=blob.storage_alias, is_stored=True)
    incoming = Blob.objects.filter(pk=blob.pk, is_stored=False)
    while not twins.update(touched_at=timezone.now()):
        try:
            with transaction.atomic():
                changed = incoming.update(
                    sha256=sha256, size_bytes=size_bytes, is_stored=True, touched_at=timezone.now()
                )
        except IntegrityError:  # an upload of the same bytes was faster
            continue
        if not changed:
            raise _too_slow()
        blob.refresh_from_db()
        return blob
    _discard(blob)
    return twins.get()


def _discard(blob: Blob) -> None:
    """Remove an incoming blob at once; if that fails, the collector does it later."""
    try:
        storages[blob.storage_alias].delete(name_of(blob))
        Blob.objects.filter(pk=blob.pk, is_stored=False).delete()
    except Exception:
        log.warning("blob_not_discarded", extra={"blob": blob.pk.hex}, exc_info=True)


def _tie(blobs: Mapping[str, Blob]) -> Bundle:
    """The bundle of these stored blobs, all of them touched in the transaction that finds or makes it."""
    size_bytes = sum(blob.size_bytes for blob in blobs.values())
    with transaction.atomic():
        _touch({blob.pk for blob in blobs.values()})
        bundle, is_new = Bundle.objects.select_for_update().get_or_create(
            digest=digest_of({path: blob.sha256 for path, blob in blobs.items()}), defaults={"size_bytes": size_bytes}
        )
        if is_new:
            BundleFile.objects.bulk_create(
                BundleFile(bundle=bundle, path=path, blob=blob) for path, blob in blobs.items()
            )
        else:  # its blobs may be others: those of a storage that the tenant was moved from
            _touch(set(bundle.files.values_list("blob_id", flat=True)))
    return bundle


def _touch(keys: set[Any]) -> None:
    """Keep these blobs from the collector. They are locked in one order, so that two uploads never deadlock."""
    rows = Blob.objects.filter(pk__in=keys, is_stored=True)
    list(rows.order_by("pk").select_for_update().values_list("pk"))
    if rows.update(touched_at=timezone.now()) != len(keys):
        raise _too_slow()


def _too_slow() -> Unavailable:
    return Unavailable(
        "Storing took so long that the first of it was cleared away; send it again.", code="upload_too_slow"
    )


def digest_of(hashes: Mapping[str, str]) -> str:
    """The digest of a bundle, from the SHA-256 of each file by its path."""
    lines = "".join(f"{sha256} {path}\n" for path, sha256 in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def named_bundles() -> Q:
    """The condition that something names a bundle: any table with a foreign key to it, those of other apps included."""
    relations = [
        relation
        for relation in Bundle._meta.get_fields(include_hidden=True)
        if relation.auto_created and relation.one_to_many and relation.related_model is not BundleFile
    ]
    condition = Q()
    for relation in relations:
        owner, column = relation.related_model, relation.field.name  # type: ignore[union-attr]
        condition |= Q(Exists(owner._default_manager.filter(**{column: OuterRef("pk")})))  # type: ignore[union-attr]
    return condition


def used_bytes() -> int:
    """How much the tenant keeps: files that something names, each counted once."""
    bundles = Bundle.objects.filter(named_bundles())
    blobs = Blob.objects.filter(Exists(BundleFile.objects.filter(blob=OuterRef("pk"), bundle__in=bundles)))
    return blobs.aggregate(total=Sum("size_bytes"))["total"] or 0


def sweep() -> int:
    """Remove the current tenant's files that nothing names and nobody touched lately; how many were removed.

    Safe beside uploads and beside itself. Killed halfway, it is finished by the next one.
    """
    cutoff = timezone.now() - GRACE
    for key in Bundle.objects.exclude(named_bundles()).values_list("pk", flat=True)[:SWEEP_BATCH]:
        _untie(key, cutoff)
    removed = 0
    for blob in _doomed(cutoff):
        with storage_faults(blob.storage_alias):
            storages[blob.storage_alias].delete(name_of(blob))
        removed += Blob.objects.filter(pk=blob.pk, is_stored=False).delete()[0]
    return removed


def _untie(key: Any, cutoff: Any) -> None:
    """Remove a bundle that nothing names, unless an upload has it in hand."""
    with transaction.atomic():
        if not Bundle.objects.select_for_update(skip_locked=True).filter(pk=key).exists():
            return
        # Asked after the lock: an upload that came first has committed its touch by now.
        is_fresh = BundleFile.objects.filter(bundle=key, blob__touched_at__gte=cutoff).exists()
        if not is_fresh:
            Bundle.objects.exclude(named_bundles()).filter(pk=key).delete()


def _doomed(cutoff: Any) -> list[Blob]:
    """Blobs to be removed, made unfindable for uploads: what an upload never finished, and what no bundle has."""
    is_tied = Exists(BundleFile.objects.filter(blob=OuterRef("pk")))
    with transaction.atomic():
        stale = Blob.objects.filter(~is_tied, touched_at__lt=cutoff).select_for_update(skip_locked=True)
        blobs = list(stale.order_by("touched_at")[:SWEEP_BATCH])
        Blob.objects.filter(pk__in=[blob.pk for blob in blobs]).update(is_stored=False)
    return blobs
