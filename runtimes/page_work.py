"""Documents seen from the client: their pages as pixels out of a confined runner, and boxes drawn on them.

numpy and msgpack only. What comes out of a runner is pixels, which are counted; PNG files are written here, so no byte
of a file that is shown to people is a runner's.
"""

from __future__ import annotations

import math
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtimes import png_files
from runtimes.detection import Box, Detection
from runtimes.errors import DeadlineExceeded, ModelError, ProtocolFault, from_message, plain
from runtimes.limits import GIB, Limits
from runtimes.messages import Frame
from runtimes.page_limits import (
    LABEL_CHARS,
    MAX_PAGES,
    MAX_PIXELS,
    MAX_SIDE,
    MEDIA_TYPES,
    MOST_CORNERS,
    MOST_DRAWN,
    PDF,
    UNREADABLE,
)
from runtimes.work import Client, Work, checked, map_of

NO_FRAME = Frame({}, memoryview(b""))
LEAST_DPI, MOST_DPI, DEFAULT_DPI = 20, 600, 150
SNIFFED_BYTES = 1_024
# what reading one document may use: call_seconds is for opening it, and for each page
DOCUMENT_LIMITS = Limits(memory_bytes=GIB, call_seconds=30.0, fit_seconds=4 * 3600.0, cpu_seconds=3600)
DRAWING_LIMITS = Limits(memory_bytes=GIB, fit_seconds=30.0, cpu_seconds=30)


@dataclass(frozen=True)
class PageSize:
    """A page's size in points, 1/72 inch."""

    width_pt: float
    height_pt: float


@dataclass(frozen=True)
class PageImage:
    """A rendered page: (height, width, 3) uint8, and the same as a PNG file."""

    rgb: np.ndarray
    png: bytes
    width_pt: float
    height_pt: float


def media_type_of(start: bytes) -> str | None:
    """Which kind of document begins so; None where it is none that is read here."""
    if start.startswith(png_files.MAGIC):
        return "image/png"
    if start.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "image/tiff"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "image/webp"
    return PDF if b"%PDF-" in start[:SNIFFED_BYTES] else None  # readers of PDF take some bytes before it


class Document:
    """An open document, in a runner of its own that ends with the `with` block.

    pages: the size of each, known at once. One thread uses it.
    """

    def __init__(self, client: Client, document_fd: int, media_type: str, limits: Limits = DOCUMENT_LIMITS) -> None:
        if media_type not in MEDIA_TYPES:
            raise ModelError(f"Documents are {', '.join(MEDIA_TYPES)}.", UNREADABLE)
        self._limits, self._until = limits, math.inf
        request = {"op": "pages", "media_type": media_type, "limits": limits.to_json()}
        self._work = Work(client, request, document_fd, self._is_late)
        self.pages: tuple[PageSize, ...] = ()

    def __enter__(self) -> Document:
        self._work.__enter__()
        try:
            self._wait_no_longer_than_a_call()
            self._frames = self._work.frames()
            self.pages = _sizes(self._next())
        except BaseException:
            self._work.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._work.__exit__(*exc_info)

    def render(self, index: int, dpi: float = DEFAULT_DPI) -> PageImage:
        """A page, the first one being 0. A page that would have too many pixels comes at a lower resolution.

        Raises:
            ModelError: this page cannot be rendered; others may. DeadlineExceeded: it took too long, and the document
            is to be opened anew for the others. RunnerDied, HostUnavailable: the same.
        """
        if not LEAST_DPI <= dpi <= MOST_DPI:
            raise ValueError(f"dpi is between {LEAST_DPI} and {MOST_DPI}")
        size = self.pages[index]
        self._wait_no_longer_than_a_call()
        self._work.answer({"page": index, "dpi": float(dpi)})
        rgb = self._pixels(index)
        return PageImage(rgb, png_files.png_of(rgb), size.width_pt, size.height_pt)

    def _pixels(self, index: int) -> np.ndarray:
        pieces = Pixels()
        while "page" not in (frame := self._next()).header:
            pieces.take(frame)
        if frame.header["page"] != index:
            raise ProtocolFault("A runner sent another page.")
        if "page_fault" in frame.header:
            raise _believed(frame.header["page_fault"])
        return pieces.image(frame.header)

    def _next(self) -> Frame:
        try:
            return next(self._frames)
        except StopIteration:
            raise ProtocolFault("A runner ended in mid-document.") from None

    def _wait_no_longer_than_a_call(self) -> None:
        self._until = time.monotonic() + self._limits.call_seconds

    def _is_late(self) -> bool:
        if time.monotonic() > self._until:
            raise DeadlineExceeded(f"A page took longer than its {self._limits.call_seconds:g} seconds.")
        return False


class Pixels:
    """The pieces of an image as they come out of a runner, no more than an image may have."""

    def __init__(self) -> None:
        self._pieces: list[memoryview] = []
        self._bytes = 0

    def take(self, frame: Frame) -> None:
        """Keep a piece.

        Raises:
            ProtocolFault: there are more than an image has.
        """
        piece = _pixels_in(frame)
        self._bytes += piece.nbytes
        if self._bytes > 3 * MAX_PIXELS:
            raise ProtocolFault("A runner sent more than a page holds.")
        self._pieces.append(piece)

    def image(self, told: Mapping[str, Any]) -> np.ndarray:
        """The whole image, whose height and width the runner has told."""
        height, width = _size(told)
        if height * width * 3 != self._bytes:
            raise ProtocolFault("A runner sent a page of another size than it says.")
        return np.frombuffer(b"".join(self._pieces), np.uint8).reshape(height, width, 3)


def _pixels_in(frame: Frame) -> memoryview:
    if "pixels" not in frame.header or not frame.body.nbytes:
        raise ProtocolFault("A runner sent what is no part of a page.")
    return frame.body


def _size(told: Mapping[str, Any]) -> tuple[int, int]:
    """The height and width of an image that a runner may send."""
    height, width = told.get("height"), told.get("width")
    if type(height) is not int or type(width) is not int or min(height, width) <= 0:
        raise ProtocolFault("A runner sent a page without a size.")
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise ProtocolFault("A runner sent a page larger than one may be.")
    return height, width


def _sizes(frame: Frame) -> tuple[PageSize, ...]:
    told = frame.header.get("pages")
    if not isinstance(told, list) or not 0 < len(told) <= MAX_PAGES:
        raise ProtocolFault("A runner told no sizes of pages.")
    with checked():
        sizes = tuple(PageSize(float(width), float(height)) for width, height in told)
    if not all(0 < side < math.inf for size in sizes for side in (size.width_pt, size.height_pt)):
        raise ProtocolFault("A runner told an impossible size of a page.")
    return sizes


def _believed(value: object) -> ModelError:
    """Why a page cannot be rendered; nothing else is a runner's to say."""
    fault = from_message(map_of(value))
    return fault if isinstance(fault, ModelError) else ModelError(fault.message, UNREADABLE)


def draw(client: Client, png: bytes, boxes: Sequence[Detection], limits: Limits = DRAWING_LIMITS) -> bytes:
    """The image with the boxes, their labels and scores drawn on it, as PNG; a label has one colour in all images.

    Raises:
        ModelError: it is no image. DeadlineExceeded, RunnerDied, HostUnavailable.
    """
    drawn = [[_shown(one.label), one.score, list(one.box), _corners(one), _colour(one.label)] for one in boxes]
    return _worked_on(client, {"op": "draw", "boxes": drawn[:MOST_DRAWN]}, png, limits)


def crop(client: Client, png: bytes, box: Box, limits: Limits = DRAWING_LIMITS) -> bytes:
    """What is in the box, in pixels, as PNG; at least one pixel of the image.

    Raises:
        As `draw` does.
    """
    return _worked_on(client, {"op": "crop", "box": list(box)}, png, limits)


def _shown(label: str) -> str:
    return plain(label, LABEL_CHARS)


def _corners(one: Detection) -> list[list[float]] | None:
    if not one.polygon:
        return None
    step = math.ceil(len(one.polygon) / MOST_CORNERS)
    return [list(corner) for corner in one.polygon[::step]]


def _colour(label: str) -> int:
    return zlib.crc32(label.encode(errors="replace"))


def _worked_on(client: Client, order: Mapping[str, Any], png: bytes, limits: Limits) -> bytes:
    with _in_memory(png) as image_fd:
        request = {**order, "limits": limits.to_json()}
        with Work(client, request, image_fd, lambda: False) as work:
            png = _written(work.frames())
            work.usage()
    return png


def _written(frames: Iterator[Frame]) -> bytes:
    """The PNG of an image whose size comes first, then its pixels; they are written as they come."""
    writer = png_files.PngWriter(*_size(next(frames, NO_FRAME).header))
    try:
        for frame in frames:
            writer.write(_pixels_in(frame))
        return writer.end()
    except ValueError as error:
        raise ProtocolFault("A runner sent an image of another size than it says.") from error


@contextmanager
def _in_memory(data: bytes) -> Iterator[int]:
    """A descriptor of a file without a name that holds these bytes."""
    with os.fdopen(os.memfd_create("image", os.MFD_CLOEXEC), "wb") as file:
        file.write(data)
        file.flush()
        yield file.fileno()
