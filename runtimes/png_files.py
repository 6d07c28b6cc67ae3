"""PNG files (W3C, "Portable Network Graphics"), written while an image's pixels arrive, so that it is never in memory
twice.

numpy only.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

MAGIC = b"\x89PNG\r\n\x1a\n"
COMPRESSION = 3  # 6 takes three times as long for a tenth less
GREY, RGB = 0, 2  # what PNG calls them
CHANNELS = {GREY: 1, RGB: 3}


class PngWriter:
    """A file of `height` rows of `width` pixels, whose uint8 values come row by row in pieces of any size."""

    def __init__(self, height: int, width: int, kind: int = RGB) -> None:
        self._row_bytes = width * CHANNELS[kind]
        self._bytes_left = height * self._row_bytes
        self._begun_row = b""
        self._deflated = zlib.compressobj(COMPRESSION)
        self._data: list[bytes] = []
        self._head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)

    def write(self, values: memoryview) -> None:
        """Take the next values.

        Raises:
            ValueError: they are more than the image has.
        """
        self._bytes_left -= values.nbytes
        if self._bytes_left < 0:
            raise ValueError("more values than the image has")
        whole = (len(self._begun_row) + values.nbytes) // self._row_bytes * self._row_bytes
        taken = max(whole - len(self._begun_row), 0)
        if whole:
            self._deflate(self._begun_row + values[:taken])
            self._begun_row = b""
        self._begun_row += values[taken:]

    def end(self) -> bytes:
        """The file.

        Raises:
            ValueError: values are missing.
        """
        if self._bytes_left:
            raise ValueError("fewer values than the image has")
        self._data.append(self._deflated.flush())
        parts = ((b"IHDR", self._head), (b"IDAT", b"".join(self._data)), (b"IEND", b""))
        return MAGIC + b"".join(piece for name, data in parts for piece in _chunk(name, data))

    def _deflate(self, values: bytes) -> None:
        rows = np.frombuffer(values, np.uint8).reshape(-1, self._row_bytes)
        unfiltered = np.zeros((len(rows), 1 + self._row_bytes), np.uint8)  # a zero begins a row that is not filtered
        unfiltered[:, 1:] = rows
        self._data.append(self._deflated.compress(unfiltered.data))


def png_of(rgb: np.ndarray) -> bytes:
    """A (height, width, 3) uint8 image as a PNG file; one without colour as a grey one, of a third of the size."""
    height, width, _ = rgb.shape
    is_grey = bool((rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all())
    writer = PngWriter(height, width, GREY if is_grey else RGB)
    writer.write(np.ascontiguousarray(rgb[..., 0] if is_grey else rgb).data.cast("B"))
    return writer.end()


def _chunk(name: bytes, data: bytes) -> tuple[bytes, ...]:
    return struct.pack(">I", len(data)), name, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
