"""The files of a page that was read: its image, and its detections as JSON."""

import io
import json
from dataclasses import dataclass
from typing import Any

from common.errors import Conflict, NotFound
from documents.models import Document, DocumentPage
from models_registry.blobs import IncomingFile, open_file, store_bundle
from models_registry.models import Bundle, BundleFile
from runtimes.detection import Detection, in_points
from runtimes.page_work import PageImage
from tenants.models import JobState

POINTS_DIGITS, PIXEL_DIGITS, SCORE_DIGITS = 2, 1, 4


@dataclass(frozen=True)
class PageRead:
    """What reading a page came to: its image and what is on it."""

    image: PageImage
    detections: list[Detection]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.rgb.shape[0], self.image.rgb.shape[1]

    def to_json(self, number: int) -> dict[str, Any]:
        """The page as JSON values; coordinates begin at the upper left corner."""
        height, width = self.size
        return {
            "page": number,
            "width_px": width,
            "height_px": height,
            "width_pt": self.image.width_pt,
            "height_pt": self.image.height_pt,
            "detections": [self._detection(one) for one in self.detections],
        }

    def _detection(self, one: Detection) -> dict[str, Any]:
        page = (self.image.width_pt, self.image.height_pt)
        return {
            "label": one.label,
            "score": round(one.score, SCORE_DIGITS),
            "box_px": [round(value, PIXEL_DIGITS) for value in one.box],
            "box_pt": [round(value, POINTS_DIGITS) for value in in_points(one.box, self.size, page)],
            "polygon_px": one.polygon and [[round(x, PIXEL_DIGITS), round(y, PIXEL_DIGITS)] for x, y in one.polygon],
        }


def image_path(number: int) -> str:
    """Where a page's image is in its bundle, and in the zip of all."""
    return f"pages/{number:05d}.png"


def detections_path(number: int) -> str:
    """The same for its detections."""
    return f"pages/{number:05d}.json"


def store_page(number: int, read: PageRead) -> Bundle:
    """The bundle of a page that was read."""
    found = json.dumps(read.to_json(number), ensure_ascii=False).encode()
    return store_bundle(
        [
            IncomingFile(image_path(number), io.BytesIO(read.image.png)),
            IncomingFile(detections_path(number), io.BytesIO(found)),
        ]
    )


def image_file(page: DocumentPage) -> BundleFile:
    """A page's image.

    Raises:
        Conflict: the page was not read, or could not be.
    """
    return _file(page, image_path(page.number))


def found_on(page: DocumentPage) -> dict[str, Any]:
    """What was found on a page, as `PageRead.to_json` wrote it.

    Raises:
        Conflict: the page was not read, or could not be.
    """
    with open_file(_file(page, detections_path(page.number))) as file:
        found: dict[str, Any] = json.load(file)
    return found


def detections_on(page: DocumentPage) -> list[Detection]:
    """The same as values."""
    return [as_detection(one) for one in found_on(page)["detections"]]


def as_detection(one: dict[str, Any]) -> Detection:
    """A detection of a page's JSON as a value."""
    x0, y0, x1, y1 = one["box_px"]
    outline = tuple((x, y) for x, y in one["polygon_px"]) if one["polygon_px"] else None
    return Detection(one["label"], one["score"], (x0, y0, x1, y1), outline)


def page_files(document: Document) -> list[BundleFile]:
    """The files of all pages that were read, in the order of the pages."""
    read = document.pages.filter(state=JobState.SUCCEEDED).values("bundle")
    return list(BundleFile.objects.filter(bundle__in=read).select_related("blob").order_by("path"))


def _file(page: DocumentPage, path: str) -> BundleFile:
    if page.bundle_id is None:
        why = page.error_message or f"It is {page.state}."
        raise Conflict(f"Page {page.number} has no result: {why}", code="page_not_read")
    file = BundleFile.objects.select_related("blob").filter(bundle=page.bundle_id, path=path).first()
    if file is None:
        raise NotFound("The page's files are no longer kept.")
    return file
