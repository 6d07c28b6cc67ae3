"""Pages of documents as pixels, inside a confined runner: PDF by PDFium, images by Pillow.

    {pages: [[width, height], …]}                     ──>  how many pages there are, and their sizes in points
    {page, dpi}                                       <──
    {pixels}, …, {page, height, width}                ──>  the page, RGB rows from its top; or {page, page_fault}

A page that cannot be rendered is no reason to end: the next one may be asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Protocol

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from runtimes.bundle import FileSlice
from runtimes.errors import ModelError, RuntimeFault, describe, to_message
from runtimes.messages import Connection
from runtimes.page_limits import (
    DRAWN_PIECE_BYTES,
    EMPTY,
    ENCRYPTED,
    LABEL_CHARS,
    MAX_PAGES,
    MAX_PIXELS,
    MAX_SIDE,
    PDF,
    PIECE_BYTES,
    TOO_LARGE,
    TOO_MANY,
    UNREADABLE,
)

POINTS = 72  # in an inch
LEAST_POINTS, MOST_POINTS = 0.01, 1e7
MOST_DECODED_PIXELS = 4 * MAX_PIXELS  # of an image that is then made smaller; beyond it is refused undecoded
LIKELY_DPI = (30.0, 2_400.0)  # what an image says of itself beyond them is a mistake
PILLOW_NAMES: Mapping[str, str] = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/tiff": "TIFF",
    "image/webp": "WEBP",
}
PALETTE = (
    (214, 39, 40), (31, 119, 180), (44, 160, 44), (148, 103, 189), (230, 126, 34), (23, 162, 184), (227, 70, 150),
    (120, 94, 70),
)  # fmt: skip
Image.MAX_IMAGE_PIXELS = None  # sizes are looked at here, before anything is decoded


class Pages(Protocol):
    """An open document."""

    sizes: list[tuple[float, float]]

    def render(self, index: int, dpi: float) -> np.ndarray:
        """The (height, width, 3) pixels of a page."""


def serve_pages(order: Mapping[str, Any], channel: Connection, document_fd: int) -> dict[str, Any]:
    """Send pages as they are asked for, until the client says that it needs no more.

    Raises:
        ModelError: the document cannot be opened.
    """
    pages = opened(FileSlice.whole(document_fd), str(order["media_type"]))
    channel.send({"pages": [list(size) for size in pages.sizes]})
    while "page" in (asked := channel.receive().header):
        _answer(pages, int(asked["page"]), float(asked["dpi"]), channel)
    return {}


def opened(file: BinaryIO, media_type: str) -> Pages:
    """The document in a file.

    Raises:
        ModelError: it cannot be read, asks for a password, or has no page or too many.
    """
    pages: Pages = PdfPages(file) if media_type == PDF else ImagePages(file, PILLOW_NAMES[media_type])
    return pages


def _answer(pages: Pages, index: int, dpi: float, channel: Connection) -> None:
    try:
        pixels = explained(lambda: pages.render(index, dpi))
    except RuntimeFault as fault:
        channel.send({"page": index, "page_fault": to_message(fault)})
        return
    _send(pixels, channel)
    channel.send({"page": index, "height": len(pixels), "width": pixels.shape[1]})


def _send(pixels: np.ndarray, channel: Connection, piece_bytes: int = PIECE_BYTES) -> None:
    view = np.ascontiguousarray(pixels).data.cast("B")
    for start in range(0, view.nbytes, piece_bytes):
        channel.send({"pixels": True}, [view[start : start + piece_bytes]])


def explained(work: Callable[[], Any]) -> Any:
    """The result of reading something hostile, or the reason of its failure as a ModelError."""
    try:
        return work()
    except RuntimeFault:
        raise
    except MemoryError as error:
        raise ModelError("Reading the page takes more memory than its budget.", TOO_LARGE) from error
    except Exception as error:  # whatever a library raises over bytes that nobody vouches for
        raise ModelError(f"The document cannot be read ({describe(error, 200)}).", UNREADABLE) from error


def _checked_count(count: int) -> int:
    if count == 0:
        raise ModelError("The document has no page.", EMPTY)
    if count > MAX_PAGES:
        raise ModelError(f"The document has more than {MAX_PAGES:,} pages; split it.", TOO_MANY)
    return count


class PdfPages:
    """The pages of a PDF, with its annotations and the filled-in fields of its forms."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            self._document = pdfium.PdfDocument(file)
        except pdfium.PdfiumError as error:
            raise _of_pdfium(error) from error
        count = _checked_count(len(self._document))
        if self._document.get_formtype() in (pdfium_c.FORMTYPE_ACRO_FORM, pdfium_c.FORMTYPE_XFA_FOREGROUND):
            self._document.init_forms()
        self.sizes = [_points(self._document.get_page_size(index)) for index in range(count)]

    def render(self, index: int, dpi: float) -> np.ndarray:
        """The page's pixels on white, at a lower resolution where there would be too many."""
        width, height = _pixels(self.sizes[index], dpi)
        page = self._document[index]
        bitmap = pdfium.PdfBitmap.new_native(width, height, pdfium_c.FPDFBitmap_BGR, rev_byteorder=True)
        bitmap.fill_rect((255, 255, 255, 255), 0, 0, width, height)
        place = (0, 0, width, height, 0, pdfium_c.FPDF_ANNOT | pdfium_c.FPDF_REVERSE_BYTE_ORDER)
        pdfium_c.FPDF_RenderPageBitmap(bitmap, page, *place)
        if page.formenv:
            pdfium_c.FPDF_FFLDraw(page.formenv, bitmap, page, *place)
        pixels = bitmap.to_numpy()[..., :3].copy()
        bitmap.close()
        page.close()  # else what it holds stays as long as the document
        return np.asarray(pixels)


def _of_pdfium(error: pdfium.PdfiumError) -> ModelError:
    if error.err_code == pdfium_c.FPDF_ERR_SUCCESS:  # there is a document, and it has no page
        return ModelError("The document has no page.", EMPTY)
    if error.err_code in (pdfium_c.FPDF_ERR_PASSWORD, pdfium_c.FPDF_ERR_SECURITY):
        return ModelError("The PDF is encrypted and asks for a password; save it without one.", ENCRYPTED)
    return ModelError("The file is no PDF that can be read; it may have been cut.", UNREADABLE)


def _points(size: tuple[float, float]) -> tuple[float, float]:
    width, height = (min(max(side, LEAST_POINTS), MOST_POINTS) if math.isfinite(side) else 1.0 for side in size)
    return width, height


def _pixels(size: tuple[float, float], dpi: float) -> tuple[int, int]:
    """Width and height in pixels of a page whose size is in points: as many as were asked for, if that may be."""
    width, height = size
    scale = min(dpi / POINTS, MAX_SIDE / max(size), math.sqrt(MAX_PIXELS / width / height))
    return _side(width * scale), min(_side(height * scale), MAX_PIXELS // _side(width * scale))


def _side(pixels: float) -> int:
    return min(max(1, round(pixels)), MAX_SIDE)


class ImagePages:
    """An image as one page, or the images of a TIFF as pages."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._image = explained(lambda: _opened_image(file, name))
        self._is_many = name == "TIFF"
        self.sizes = explained(lambda: [self._size() for _ in self._frames()])

    def render(self, index: int, dpi: float) -> np.ndarray:
        """The image's pixels on white, the right way up; made smaller where it says that it has more than `dpi`."""
        if self._is_many:
            self._image.seek(index)
        width, height = self._image.size
        if width * height > MOST_DECODED_PIXELS or max(width, height) > 4 * MAX_SIDE:
            raise ModelError(f"The image has {width} by {height} pixels, more than can be decoded.", TOO_LARGE)
        wanted = _pixels((width, height), POINTS * min(1.0, dpi / self._dpi()))
        upright = ImageOps.exif_transpose(_rgb(self._image))
        turned = wanted if upright.size == (width, height) else wanted[::-1]
        fitting = upright if upright.size == turned else upright.resize(turned, Image.Resampling.BILINEAR)
        return np.asarray(fitting)

    def _frames(self) -> Iterator[int]:
        """Every image in the file, one after the other the current one."""
        yield 0
        if not self._is_many:
            return
        for index in range(1, MAX_PAGES + 1):
            try:
                self._image.seek(index)
            except EOFError:
                return
            _checked_count(index + 1)
            yield index

    def _size(self) -> tuple[float, float]:
        width, height = self._image.size
        is_turned = self._image.getexif().get(0x0112) in (5, 6, 7, 8)  # orientations that lie on a side
        scale = POINTS / self._dpi()
        return _points((height * scale, width * scale) if is_turned else (width * scale, height * scale))

    def _dpi(self) -> float:
        """What the image says; without a word, that a pixel is a point."""
        told = self._image.info.get("dpi")
        try:
            dpi = float(told[0])
        except (TypeError, ValueError, IndexError, ZeroDivisionError):
            return POINTS
        return dpi if LIKELY_DPI[0] <= dpi <= LIKELY_DPI[1] else POINTS


def _opened_image(file: BinaryIO, name: str) -> Image.Image:
    try:
        return Image.open(file, formats=[name])
    except UnidentifiedImageError as error:
        raise ModelError(f"The file is no {name} that can be read; it may have been cut.", UNREADABLE) from error


def _rgb(image: Image.Image) -> Image.Image:
    """The image as RGB: what is transparent is white, and more than eight bits become eight."""
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        above = image.convert("RGBA")
        white = Image.new("RGBA", above.size, "white")
        white.alpha_composite(above)
        flat = white.convert("RGB")
    else:
        flat = image.convert("RGB")
    flat.info, flat._exif = image.info, image.getexif()
    return flat


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    most = 65_535.0 if image.mode.startswith("I;16") else max(float(values.max(initial=0)), 1.0)
    made = Image.fromarray((values.clip(0, most) * (255 / most)).astype(np.uint8))
    made.info = image.info
    made._exif = image.getexif()
    return made


def draw(order: Mapping[str, Any], channel: Connection, image_fd: int) -> dict[str, Any]:
    """Send how large an image is, and it with boxes and labels drawn on it.

    order: `boxes` as [label, score, box, polygon or None, number of its colour].
    """
    image = _png(image_fd)
    painter = ImageDraw.Draw(image)
    line = max(2, round(min(image.size) / 400))
    font = ImageFont.load_default(size=max(11, round(min(image.size) / 65)))
    for label, score, box, polygon, number in order["boxes"]:
        colour = PALETTE[int(number) % len(PALETTE)]
        if polygon:
            corners = [(float(x), float(y)) for x, y in polygon]
            painter.line([*corners, corners[0]], fill=colour, width=line, joint="curve")
        x0, y0, x1, y1 = (float(value) for value in box)
        painter.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=colour, width=line)
        _label(painter, f"{str(label)[:LABEL_CHARS]} {float(score):.2f}", (x0, y0), colour, font)
    return _sent(image, channel)


def _label(painter: ImageDraw.ImageDraw, text: str, corner: tuple[float, float], colour: Any, font: Any) -> None:
    """The text on a patch of the colour, above the corner where there is room."""
    left, top, right, bottom = painter.textbbox((0, 0), text, font=font)
    x, y = corner[0], corner[1] - (bottom - top) - 6
    y = y if y >= 0 else corner[1]
    painter.rectangle((x, y, x + right - left + 6, y + bottom - top + 6), fill=colour)
    painter.text((x + 3 - left, y + 3 - top), text, fill="white", font=font)


def crop(order: Mapping[str, Any], channel: Connection, image_fd: int) -> dict[str, Any]:
    """Send how large the part of an image is that a box holds, and that part."""
    image = _png(image_fd)
    x0, y0, x1, y1 = (float(value) for value in order["box"])
    left, top = min(max(0, math.floor(x0)), image.width - 1), min(max(0, math.floor(y0)), image.height - 1)
    right, bottom = min(image.width, max(left + 1, math.ceil(x1))), min(image.height, max(top + 1, math.ceil(y1)))
    return _sent(image.crop((left, top, right, bottom)), channel)


def _png(image_fd: int) -> Image.Image:
    image = _opened_image(FileSlice.whole(image_fd), "PNG")
    if image.width * image.height > MAX_PIXELS:
        raise ModelError("The image is larger than a page may be.", TOO_LARGE)
    return image.convert("RGB")


def _sent(image: Image.Image, channel: Connection) -> dict[str, Any]:
    channel.send({"height": image.height, "width": image.width})
    _send(np.asarray(image), channel, DRAWN_PIECE_BYTES)
    return {}
