"""Images with annotations as COCO has them, in a zip: one JSON file with `images`, `annotations` and `categories`, and
the images that it names, anywhere in the archive. Only a confined runner reads a tenant's file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from runtimes.detection import Detection
from runtimes.errors import ArtifactRejected, ModelError, describe, plain
from runtimes.folders import ZipFolder

FORMAT = "coco"
MOST_IMAGES = 9_000
MOST_ANNOTATIONS = 1_000_000
MOST_LABELS = 1_000
MOST_JSON_BYTES = 256 << 20
MOST_PIXELS = 50_000_000
MOST_NAME_CHARS = 200
KEYS = ("images", "annotations", "categories")
PILLOW_NAMES = ("PNG", "JPEG", "TIFF", "WEBP")
BEYOND = 1.0  # pixels that a box may stick out by before it is a mistake, and is not cut


class InvalidImages(ModelError):
    """The file is no set of images with annotations; the message says where."""

    code = "invalid_dataset"


@dataclass(frozen=True)
class Annotated:
    """An image of the archive by its path, and the true boxes on it."""

    path: str
    height: int
    width: int
    boxes: tuple[Detection, ...]


class CocoFile:
    """The images and labels of an archive.

    labels: the categories' names in the order of their ids, which is a detector's order.

    Raises:
        InvalidImages: with what is wrong, and where.
    """

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        try:
            self._files = ZipFolder(file, size_bytes)
        except ArtifactRejected as rejection:
            raise InvalidImages(rejection.reason) from rejection
        self._json_path, told = self._annotations()
        self.labels, labels = _labels(told["categories"])
        self.images = self._images(told["images"], _boxes(told["annotations"], labels))

    def pixels(self, image: Annotated) -> np.ndarray:
        """The (height, width, 3) uint8 pixels of an image.

        Raises:
            InvalidImages: it cannot be read, or has another size than the annotations say.
        """
        from PIL import Image  # a declared library set may lack it, and only this needs it

        shown = plain(image.path, 80)
        try:
            with Image.open(self._files.open(image.path), formats=PILLOW_NAMES) as opened:
                if (opened.height, opened.width) != (image.height, image.width):
                    size = f"{opened.width} by {opened.height}"
                    raise InvalidImages(f"'{shown}' has {size} pixels, and the annotations say another size.")
                return np.asarray(opened.convert("RGB"))
        except ModelError:
            raise
        except Exception as error:  # whatever Pillow raises over bytes that are no image
            raise InvalidImages(f"'{shown}' is no PNG, JPEG, TIFF or WebP image ({describe(error, 100)}).") from error

    def _annotations(self) -> tuple[str, Mapping[str, Any]]:
        """The path and content of the one JSON file with annotations."""
        found = []
        for path in self._files.paths():
            if path.lower().endswith(".json") and self._files.size(path) <= MOST_JSON_BYTES:
                content = self._json(path)
                if isinstance(content, Mapping) and all(isinstance(content.get(key), list) for key in KEYS):
                    found.append((path, content))
        if not found:
            raise InvalidImages(f"The zip holds no JSON file with the lists {', '.join(KEYS)}, as COCO has them.")
        if len(found) > 1:
            names = ", ".join(plain(path, 60) for path, _ in found[:5])
            raise InvalidImages(f"The zip holds several files of annotations ({names}); send each as a dataset.")
        return found[0]

    def _json(self, path: str) -> Any:
        try:
            return json.loads(self._files.read(path))
        except (ValueError, RecursionError) as error:
            raise InvalidImages(f"'{plain(path, 80)}' is no JSON ({describe(error, 100)}).") from error
        except ArtifactRejected as rejection:
            raise InvalidImages(rejection.reason) from rejection

    def _images(self, told: list[Any], boxes: Mapping[Any, list[tuple[int, str, Any]]]) -> list[Annotated]:
        if not 0 < len(told) <= MOST_IMAGES:
            raise InvalidImages(f"A dataset has 1 to {MOST_IMAGES:,} images, and this one {len(told):,}.")
        paths, known = _Paths(self._files.paths()), dict[Any, Annotated]()
        for place, one in enumerate(told):
            where = f"images[{place}]"
            if not isinstance(one, Mapping) or not isinstance(one.get("file_name"), str):
                raise InvalidImages(f"{where} has no file_name.")
            height, width, number = one.get("height"), one.get("width"), one.get("id")
            if type(height) is not int or type(width) is not int or not 0 < height * width <= MOST_PIXELS:
                raise InvalidImages(f"{where} has no height and width in pixels that an image may have.")
            if not isinstance(number, int | str) or number in known:
                raise InvalidImages(f"{where} has no id of its own.")
            path = paths.find(one["file_name"], self._json_path)
            if path is None:
                raise InvalidImages(f"{where}: the zip holds no image '{plain(one['file_name'], 80)}'.")
            found = tuple(_inside(*each, height, width) for each in boxes.get(number, ()))
            known[number] = Annotated(path, height, width, found)
        strange = next((entries[0][0] for number, entries in boxes.items() if number not in known), None)
        if strange is not None:
            raise InvalidImages(f"annotations[{strange}] is of an image that is not there.")
        return list(known.values())


class _Paths:
    """The archive's paths, and which of them a file_name means."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self._paths = set(paths)
        self._by_name: dict[str, list[str]] = {}
        for path in paths:
            self._by_name.setdefault(path.rpartition("/")[2], []).append(path)

    def find(self, file_name: str, json_path: str) -> str | None:
        """As it stands, beside the annotations, or the only file of this name."""
        beside = json_path.rpartition("/")[0]
        for path in (file_name, f"{beside}/{file_name}", f"images/{file_name}"):
            if path in self._paths:
                return path
        named = self._by_name.get(file_name.rpartition("/")[2], [])
        return named[0] if len(named) == 1 else None


def _labels(told: list[Any]) -> tuple[list[str], dict[Any, str]]:
    """The names in the order of their ids, and each id's name."""
    names: dict[Any, str] = {}
    for place, one in enumerate(told):
        name, number = (one.get("name"), one.get("id")) if isinstance(one, Mapping) else (None, None)
        if not isinstance(name, str) or not 0 < len(name) <= MOST_NAME_CHARS or not isinstance(number, int | str):
            raise InvalidImages(f"categories[{place}] has no id and name.")
        if number in names or name in names.values():
            raise InvalidImages(f"categories[{place}]: the id or the name '{plain(name, 60)}' comes twice.")
        names[number] = name
    if not 0 < len(names) <= MOST_LABELS:
        raise InvalidImages(f"A dataset has 1 to {MOST_LABELS:,} categories, and this one {len(names):,}.")
    order = sorted(names, key=lambda number: (isinstance(number, str), number))
    return [names[number] for number in order], names


def _boxes(told: list[Any], labels: Mapping[Any, str]) -> dict[Any, list[tuple[int, str, Any]]]:
    """The place, label and bbox of each annotation, by its image's id; crowds are left out."""
    if len(told) > MOST_ANNOTATIONS:
        raise InvalidImages(f"A dataset has at most {MOST_ANNOTATIONS:,} annotations.")
    found: dict[Any, list[tuple[int, str, Any]]] = {}
    for place, one in enumerate(told):
        where = f"annotations[{place}]"
        if not isinstance(one, Mapping) or not isinstance(one.get("image_id"), int | str):
            raise InvalidImages(f"{where} has no image_id.")
        category = one.get("category_id")
        if not isinstance(category, int | str) or category not in labels:
            raise InvalidImages(f"{where} has the category {plain(category, 40)}, which is none of the categories.")
        if not one.get("iscrowd"):
            found.setdefault(one["image_id"], []).append((place, labels[category], one.get("bbox")))
    return found


def _inside(place: int, label: str, bbox: Any, height: int, width: int) -> Detection:
    """The true box in an image's pixels."""
    where = f"annotations[{place}]"
    is_four = isinstance(bbox, list) and len(bbox) == 4
    if not is_four or not all(isinstance(value, int | float) and math.isfinite(value) for value in bbox):
        raise InvalidImages(f"{where} has no bbox of four numbers: x, y, width, height.")
    x, y, across, down = (float(value) for value in bbox)
    if across <= 0 or down <= 0:
        raise InvalidImages(f"{where} has an empty bbox.")
    if min(x, y) < -BEYOND or x + across > width + BEYOND or y + down > height + BEYOND:
        raise InvalidImages(f"{where} has a bbox that is not inside of its image of {width} by {height} pixels.")
    box = (max(x, 0.0), max(y, 0.0), min(x + across, float(width)), min(y + down, float(height)))
    return Detection(label, 1.0, box)


def rows_of(images: list[Annotated]) -> Iterator[dict[str, Any]]:
    """The images as rows of a table: what a profile counts."""
    for image in images:
        labels = sorted({one.label for one in image.boxes})
        told = ", ".join(f"{sum(one.label == label for one in image.boxes)} {label}" for label in labels)
        size = {"width": image.width, "height": image.height}
        yield {"image": image.path, **size, "boxes": len(image.boxes), "label": told or None}
