"""A version's files packed into one read-only file, so that a runner needs one descriptor and no path.

Layout: the files' bytes one after the other, each at a multiple of 64; the index, a msgpack list of
[path, offset, size]; a trailer of fixed size that says where the index lies.
"""

from __future__ import annotations

import errno
import io
import os
import struct
from collections.abc import Iterable
from typing import Any, BinaryIO, Protocol

import msgpack

MAGIC = b"TNTBNDL1"
TRAILER = struct.Struct("<QQ8s")
ALIGNMENT = 64
COPY_BYTES = 1 << 20
MAX_FILES = 10_000
MAX_PATH_CHARS = 1_024
MAX_INDEX_BYTES = 16 << 20
BUFFER_BYTES = 1 << 18


class BadBundle(ValueError):
    """The file is no bundle, or it was cut short."""


class Files(Protocol):
    """A tree of files: a packed bundle, or what `runtimes.folders` finds inside of one."""

    def paths(self) -> tuple[str, ...]:
        """Every path, plain and relative."""

    def size(self, path: str) -> int:
        """The file's size in bytes."""

    def open(self, path: str) -> BinaryIO:
        """A read-only, seekable file; KeyError where there is no such path."""

    def read(self, path: str) -> bytes:
        """The whole file as bytes."""


def pack(files: Iterable[tuple[str, BinaryIO, int]], out: BinaryIO) -> None:
    """Write the files as one bundle; each is (path, open file, size) and is read once, in order.

    Raises:
        BadBundle: a path is absolute, leaves the bundle or comes twice, or a file holds fewer bytes than its size.
    """
    index: list[tuple[str, int, int]] = []
    position = 0
    for path, source, size in files:
        padding = -position % ALIGNMENT
        out.write(bytes(padding))
        _copy(path, source, size, out)
        index.append((path, position + padding, size))
        position += padding + size
    _check_paths([path for path, _, _ in index])
    packed = msgpack.packb(index)
    out.write(packed)
    out.write(TRAILER.pack(position, len(packed), MAGIC))
    out.flush()


def _copy(path: str, source: BinaryIO, size: int, out: BinaryIO) -> None:
    left = size
    while left:
        chunk = source.read(min(left, COPY_BYTES))
        if not chunk:
            raise BadBundle(f"{path} ends {left} bytes early")
        out.write(chunk)
        left -= len(chunk)


def _check_paths(paths: list[str]) -> None:
    if len(paths) > MAX_FILES:
        raise BadBundle(f"a bundle holds at most {MAX_FILES} files")
    if len(set(paths)) != len(paths):
        raise BadBundle("a path comes twice")
    if not all(is_plain(path) for path in paths):
        raise BadBundle("a path is not plain and relative")


def is_plain(path: str) -> bool:
    """Whether a path is relative and stays inside its tree."""
    parts = path.split("/")
    return 0 < len(path) <= MAX_PATH_CHARS and "\0" not in path and not any(part in ("", ".", "..") for part in parts)


class Bundle:
    """The files of a packed bundle, read through its descriptor at any offset; the descriptor stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._files = dict(_read_index(fd))

    def paths(self) -> tuple[str, ...]:
        """Every path in the bundle, in the order they were packed."""
        return tuple(self._files)

    def size(self, path: str) -> int:
        """The file's size in bytes."""
        return self._files[path][1]

    def open(self, path: str) -> BinaryIO:
        """A read-only, seekable file over one path; its bytes are read on demand and never twice in memory.

        Raises:
            KeyError: the bundle has no such path.
        """
        offset, size = self._files[path]
        return io.BufferedReader(FileSlice(self._fd, offset, size), BUFFER_BYTES)

    def read(self, path: str) -> bytes:
        """The whole file as bytes."""
        with self.open(path) as file:
            return file.read()


def _read_index(fd: int) -> list[tuple[str, tuple[int, int]]]:
    size_bytes = os.fstat(fd).st_size
    if size_bytes < TRAILER.size:
        raise BadBundle("the file is too short to be a bundle")
    position, length, magic = TRAILER.unpack(os.pread(fd, TRAILER.size, size_bytes - TRAILER.size))
    if magic != MAGIC or length > MAX_INDEX_BYTES or position + length + TRAILER.size != size_bytes:
        raise BadBundle("the bundle's trailer is damaged")
    try:
        entries = msgpack.unpackb(
            os.pread(fd, length, position), max_array_len=MAX_FILES, max_str_len=4 * MAX_PATH_CHARS
        )
        index = [(str(path), (int(offset), int(size))) for path, offset, size in entries]
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise BadBundle("the bundle's index is damaged") from error
    _check_paths([path for path, _ in index])
    if any(offset < 0 or size < 0 or offset + size > position for _, (offset, size) in index):
        raise BadBundle("the bundle's index points outside of it")
    return index


class FileSlice(io.RawIOBase):
    """A window of a file, read with pread: the descriptor's own offset is shared with other processes."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        super().__init__()
        self._fd, self._offset, self._size, self._position = fd, offset, size, 0

    @staticmethod
    def whole(fd: int) -> BinaryIO:
        """A buffered, seekable file over everything behind a descriptor, which stays the caller's."""
        return io.BufferedReader(FileSlice(fd, 0, os.fstat(fd).st_size), BUFFER_BYTES)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "negative seek position")  # as a file does: readers of zips count on it
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max(self._size - self._position, 0))
        if wanted == 0:
            return 0
        count = os.preadv(self._fd, [view[:wanted]], self._offset + self._position)
        self._position += count
        return count
