"""All that was found in a document as one COCO file, written a page at a time."""

import json
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from documents.models import Document
from documents.page_files import as_detection, found_on, image_path
from runtimes.detection import AnnotatedImage, coco_document
from tenants.models import JobState

RESULT_PATH = "annotations.coco.json"


def write_coco(document: Document, labels: Sequence[str], out: BinaryIO) -> None:
    """Write the COCO file of the pages that were read; an image's id is the number of its page.

    Of the annotations one page at a time is in memory.
    """
    described = {"description": document.title, "model": document.model_name, "version": document.version_number}
    categories = coco_document([], labels)["categories"]
    out.write(b'{"info": ' + _json(described) + b', "categories": ' + _json(categories) + b', "annotations": [')
    images, written = [], 0
    for number, page in _pages(document):
        told = coco_document([page], labels)
        images.append(told["images"][0] | {"id": number})
        for annotation in told["annotations"]:
            written += 1
            numbered = annotation | {"id": written, "image_id": number}
            out.write((b",\n" if written > 1 else b"\n") + _json(numbered))
    out.write(b'\n], "images": ' + _json(images) + b"}\n")


def _pages(document: Document) -> Iterator[tuple[int, AnnotatedImage]]:
    for page in document.pages.filter(state=JobState.SUCCEEDED).order_by("number").iterator(200):
        found = found_on(page)
        detections = [as_detection(one) for one in found["detections"]]
        yield page.number, AnnotatedImage(image_path(page.number), found["height_px"], found["width_px"], detections)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
