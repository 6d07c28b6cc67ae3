"""Trees of files inside a bundle: below one of its folders, or in a zip archive that is read where it lies.

A zip is never unpacked anywhere: its files are decompressed one by one, when they are asked for, inside the confined
runner whose memory is bounded. Archives that no honest tool makes are refused before.
"""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from typing import BinaryIO

from runtimes.bundle import Files, is_plain
from runtimes.errors import ArtifactRejected, plain

MAX_ENTRIES = 10_000
MAX_BYTES = 4 << 30
MAX_RATIO = 200
UNSUSPICIOUS_BYTES = 64 << 20  # what an archive may hold whatever it was compressed from
NOT_FILES = ("__MACOSX/",)
ENCRYPTED = 0x1
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})
# what Python's reader raises over an archive that was cut or changed
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError, KeyError)


class Subfolder:
    """The files below one folder, by their paths from there."""

    def __init__(self, files: Files, folder: str) -> None:
        self._files, self._prefix = files, f"{folder}/"

    def paths(self) -> tuple[str, ...]:
        """Every path below the folder."""
        skipped = len(self._prefix)
        return tuple(path[skipped:] for path in self._files.paths() if path.startswith(self._prefix))

    def size(self, path: str) -> int:
        """The file's size in bytes."""
        return self._files.size(self._prefix + path)

    def open(self, path: str) -> BinaryIO:
        """A read-only, seekable file; KeyError where there is no such path."""
        return self._files.open(self._prefix + path)

    def read(self, path: str) -> bytes:
        """The whole file as bytes."""
        return self._files.read(self._prefix + path)


class ZipFolder:
    """The files in a zip archive.

    Raises:
        ArtifactRejected: it is damaged, or is built to harm whoever unpacks it.
    """

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        try:
            self._archive = zipfile.ZipFile(file)
            entries = [entry for entry in self._archive.infolist() if not _is_no_file(entry)]
        except DAMAGED as error:
            raise _damaged() from error
        _check(entries, size_bytes)
        self._entries = {entry.filename: entry for entry in entries}

    def paths(self) -> tuple[str, ...]:
        """Every path in the archive."""
        return tuple(self._entries)

    def size(self, path: str) -> int:
        """The size that the archive says the file has; reading it gives no more."""
        return self._entries[path].file_size

    def open(self, path: str) -> BinaryIO:
        """The decompressed file, in memory; KeyError where there is no such path."""
        return io.BytesIO(self.read(path))

    def read(self, path: str) -> bytes:
        """The whole file as bytes, proved by its checksum."""
        entry = self._entries[path]
        try:
            return self._archive.read(entry)
        except DAMAGED as error:
            raise _damaged() from error


def _is_no_file(entry: zipfile.ZipInfo) -> bool:
    return entry.is_dir() or entry.filename.startswith(NOT_FILES) or entry.filename.endswith("/.DS_Store")


def _check(entries: list[zipfile.ZipInfo], size_bytes: int) -> None:
    names = [entry.filename for entry in entries]
    if len(entries) > MAX_ENTRIES:
        raise _refused(f"holds more than {MAX_ENTRIES} files")
    if len(set(names)) != len(names):
        raise _refused("holds a name twice")
    for entry in entries:
        shown = plain(entry.filename, 80)
        if not is_plain(entry.filename) or "\\" in entry.filename:
            raise _refused(f"holds the name '{shown}', which is not plain and relative")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise _refused(f"holds the link '{shown}'")
        if entry.flag_bits & ENCRYPTED or entry.compress_type not in METHODS:
            raise _refused("is encrypted, or compressed in a way that cannot be read here")
    total = sum(entry.file_size for entry in entries)
    if total > MAX_BYTES or total > max(UNSUSPICIOUS_BYTES, MAX_RATIO * size_bytes):
        raise _refused(f"would take {total} bytes unpacked, too many for its size")


def _refused(why: str) -> ArtifactRejected:
    return ArtifactRejected("bad_archive", f"The zip archive {why}.")


def _damaged() -> ArtifactRejected:
    return ArtifactRejected("unreadable_artifact", "The file is a damaged zip archive; it may have been cut.")
