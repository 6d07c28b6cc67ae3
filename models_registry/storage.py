"""Where tenants' files lie: a folder a tenant, or rows in the tenant's schema. S3 has a module of its own.

Each is a Django storage that streams both ways and shows a file whole or not at all; `delete_prefix` removes all that
a tenant has there. Any other Django storage works too, as far as it does these things by itself.
"""

import io
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.files import File
from django.core.files.storage import FileSystemStorage, Storage
from django.db import connection, transaction
from django.db.models import Sum
from django.db.models.functions import Length
from django.utils.deconstruct import deconstructible

from models_registry.models import BlobChunk
from tenants.scope import current_tenant, tenant_scope

CHUNK_BYTES = 1 << 20
UNFINISHED = ".part"


@deconstructible(path="models_registry.storage.FolderStorage")
class FolderStorage(FileSystemStorage):
    """A folder on a disk or on NFS, in which every tenant has one of its own.

    A file is written beside its place, flushed to the disk and renamed: the one change of a name that NFS makes whole.
    Names are the caller's to make unique; nothing is locked.
    """

    def __init__(self, location: str, **options: Any) -> None:
        super().__init__(location, **{"file_permissions_mode": 0o600, "directory_permissions_mode": 0o700} | options)

    def _save(self, name: str, content: File) -> str:  # type: ignore[type-arg]
        path = Path(self.path(name))
        self._make_folder(path.parent)
        unfinished = path.with_name(path.name + UNFINISHED)
        try:
            self._write(unfinished, content)
            unfinished.rename(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)
        return name

    def delete(self, name: str) -> None:
        """Remove a file, or what a killed process left of one; again is no error."""
        path = Path(self.path(name))
        path.unlink(missing_ok=True)
        path.with_name(path.name + UNFINISHED).unlink(missing_ok=True)

    def delete_prefix(self, tenant_id: str) -> None:
        """Remove the tenant's folder; again is no error."""
        folder = Path(self.path(tenant_id))
        if folder.exists():
            shutil.rmtree(folder)

    def _write(self, path: Path, content: File) -> None:  # type: ignore[type-arg]
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, self.file_permissions_mode or 0o600), "wb") as out:
            for chunk in content.chunks(CHUNK_BYTES):
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())

    def _make_folder(self, path: Path) -> None:
        if path.is_dir():
            return
        if path.parent != path:
            self._make_folder(path.parent)
        path.mkdir(mode=self.directory_permissions_mode or 0o700, exist_ok=True)
        _flush_folder(path.parent)


def _flush_folder(path: Path) -> None:
    """Have the folder's new names survive a power cut."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@deconstructible(path="models_registry.storage.DatabaseStorage")
class DatabaseStorage(Storage):
    """Rows of 1 MiB in the schema of the tenant in scope. No more than two of them are in memory at a time.

    A file is written by one COPY, so a killed process leaves no rows. It is six times as fast as an INSERT a row
    (50 MiB in 0.6 s instead of 3.9 s on a busy machine).
    """

    def _save(self, name: str, content: File) -> str:  # type: ignore[type-arg]
        copy = f"COPY {BlobChunk._meta.db_table} (name, number, data) FROM STDIN BINARY"
        with transaction.atomic(), connection.cursor() as cursor, connection.wrap_database_errors:
            cursor.copy_expert(copy, _CopyStream(name, content), size=CHUNK_BYTES)
        return name

    def _open(self, name: str, mode: str = "rb") -> File:  # type: ignore[type-arg]
        if mode != "rb":
            raise ValueError("files here are written whole, by `save`")
        if not self.exists(name):
            raise FileNotFoundError(name)
        return File(io.BufferedReader(_Chunks(name), CHUNK_BYTES), name)

    def delete(self, name: str) -> None:
        """Remove a file, or what a killed process left of one; again is no error."""
        with transaction.atomic():
            BlobChunk.objects.filter(name=name).delete()

    def exists(self, name: str) -> bool:
        return BlobChunk.objects.filter(name=name).exists()

    def size(self, name: str) -> int:
        total = BlobChunk.objects.filter(name=name).aggregate(total=Sum(Length("data")))["total"]
        if total is None:
            raise FileNotFoundError(name)
        return int(total)

    def delete_prefix(self, tenant_id: str) -> None:
        """Nothing: the rows go with the tenant's schema."""


class _CopyStream(io.RawIOBase):
    """A file's rows in PostgreSQL's binary COPY format (its documentation, COPY, "Binary Format")."""

    def __init__(self, name: str, content: File) -> None:  # type: ignore[type-arg]
        super().__init__()
        self._frames = self._rows(name.encode(), content)
        self._left = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        """Some bytes; none at the end."""
        if not self._left:
            self._left = memoryview(next(self._frames, b""))
        piece, self._left = self._left[:size], self._left[size:]
        return bytes(piece)

    def _rows(self, name: bytes, content: File) -> Iterator[bytes]:  # type: ignore[type-arg]
        yield b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
        for number, chunk in enumerate(_full_chunks(content)):
            fields = struct.pack(f"!hi{len(name)}siii", 3, len(name), name, 4, number, len(chunk))
            yield fields
            if chunk:
                yield chunk
        yield struct.pack("!h", -1)


def _full_chunks(content: File) -> Iterator[bytes]:  # type: ignore[type-arg]
    """The content in pieces of CHUNK_BYTES, the last one shorter; an empty file is one empty piece."""
    chunk = content.read(CHUNK_BYTES)
    yield chunk
    while len(chunk) == CHUNK_BYTES and (chunk := content.read(CHUNK_BYTES)):
        yield chunk


class _Chunks(io.RawIOBase):
    """Reads a file's rows one query a row, in the tenant that it was opened in.

    A response is streamed after the request has left its tenant, so each query goes back into it.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._tenant = current_tenant()
        self._number = 0
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = memoryview(self._next_row())
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def _next_row(self) -> bytes:
        with tenant_scope(self._tenant):
            rows = BlobChunk.objects.filter(name=self._name, number=self._number).values_list("data", flat=True)
            data = rows.first()
        self._number += 1
        return bytes(data) if data is not None else b""
