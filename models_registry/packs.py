"""This machine's copies of bundles, each packed into one file for a runner: bounded in bytes, the least used go first.

Many processes share the folder. One at a time makes a pack, the others wait for it; a pack appears whole by a rename,
and whoever has one open keeps it when it is removed.
"""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from django.conf import settings

from common.errors import Unavailable
from models_registry.blobs import open_file
from models_registry.models import Bundle
from runtimes.bundle import pack
from tenants.scope import current_tenant

PACK, UNFINISHED = ".pack", ".part"
LOCKS = ".locks"
LOCK_STRIPES = 256
ABANDONED_AFTER_S = 3600.0
SPARE_BYTES = 64 << 20  # left on the disk for everybody else


@dataclass(frozen=True)
class _Kept:
    path: Path
    size_bytes: int
    used_at: float


def open_pack(bundle: Bundle) -> int:
    """A read-only descriptor of the bundle's pack, which is made if this machine has none. The caller closes it.

    Blocks while the bundle is fetched from its storage, by this process or by another.

    Raises:
        Unavailable: the storage failed or gave wrong bytes, or this machine has no room for the pack.
    """
    path = _path_of(bundle)
    found = _open(path)
    if found is not None:
        return found
    with _locked(f"{int(bundle.digest[:8], 16) % LOCK_STRIPES:02x}"):
        found = _open(path)
        if found is None:
            with _disk_faults():
                _make(bundle, path)
            found = _open(path)
    if found is None:
        raise Unavailable(
            "This machine's cache of models is being emptied; try again.", code="cache_full", retry_after_s=5
        )
    return found


def drop_tenants_except(known: Collection[str]) -> int:
    """Remove the packs of tenants that are no more; how many tenants had some.

    known: the uuids of all there are, in hex.
    """
    root = Path(settings.BLOB_CACHE_ROOT)
    folders = [folder for folder in root.glob("*/") if folder.name != LOCKS and folder.name not in known]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return len(folders)


def _path_of(bundle: Bundle) -> Path:
    return Path(settings.BLOB_CACHE_ROOT) / current_tenant().uuid.hex / f"{bundle.digest}{PACK}"


def _open(path: Path) -> int | None:
    """The descriptor of a pack, noted as used now; None if it is not there."""
    try:
        found = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    os.utime(found)
    return found


def _make(bundle: Bundle, path: Path) -> None:
    """Fetch, verify and pack the bundle's files, under the lock of its stripe."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_suffix(UNFINISHED)
    try:
        with _reserved(unfinished, bundle.size_bytes) as out:
            pack(_files(bundle), out)
            out.truncate()
            os.fsync(out.fileno())
        unfinished.chmod(0o400)
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _files(bundle: Bundle) -> Iterator[tuple[str, BinaryIO, int]]:
    for file in bundle.files.select_related("blob"):
        with open_file(file) as source:
            yield file.path, source, file.blob.size_bytes
            source.read(1)  # an empty file is verified only by reading its end


@contextmanager
def _reserved(path: Path, size_bytes: int) -> Iterator[BinaryIO]:
    """An open file that takes its room at once, so that what the others count is right while it is being written."""
    with _locked("room"):
        _make_room(size_bytes)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            if size_bytes:
                os.posix_fallocate(descriptor, 0, size_bytes)
        except OSError:
            os.close(descriptor)
            raise
    with os.fdopen(descriptor, "wb") as out:
        yield out


def _make_room(size_bytes: int) -> None:
    """Remove the least used packs until this many bytes fit into the bound and onto the disk; none if they never will.

    Raises:
        Unavailable: they do not fit even alone.
    """
    kept = sorted(_kept(), key=lambda entry: entry.used_at)
    removable = [entry for entry in kept if _is_removable(entry)]
    freed = sum(entry.size_bytes for entry in removable)
    over = sum(entry.size_bytes for entry in kept) + size_bytes - settings.BLOB_CACHE_BYTES
    lacking = size_bytes - (shutil.disk_usage(settings.BLOB_CACHE_ROOT).free - SPARE_BYTES)
    if over > freed:
        raise Unavailable(
            f"This model needs {size_bytes} bytes of this machine's cache of models, which holds "
            f"{settings.BLOB_CACHE_BYTES}; the operator can raise BLOB_CACHE_BYTES.",
            code="cache_full",
        )
    if lacking > freed:
        raise _disk_full()
    still = max(over, lacking)
    for entry in removable:
        if still <= 0:
            return
        entry.path.unlink(missing_ok=True)
        still -= entry.size_bytes


def _kept() -> Iterator[_Kept]:
    for path in Path(settings.BLOB_CACHE_ROOT).glob("*/*"):
        if path.suffix in (PACK, UNFINISHED):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            yield _Kept(path, status.st_size, status.st_mtime)


def _is_removable(entry: _Kept) -> bool:
    """A pack, or what a killed process left of one."""
    return entry.path.suffix == PACK or entry.used_at < time.time() - ABANDONED_AFTER_S


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Hold a lock among this machine's processes and threads; the kernel frees it if this one dies."""
    folder = Path(settings.BLOB_CACHE_ROOT) / LOCKS
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _disk_faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full() from error
        raise


def _disk_full() -> Unavailable:
    return Unavailable(
        f"The disk under this machine's cache of models ({settings.BLOB_CACHE_ROOT}) is full; tell the operator.",
        code="disk_full",
        retry_after_s=60,
    )
