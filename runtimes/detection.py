"""What detectors give and how it is worked on: boxes, overlaps, suppression, coordinates, records, average precision.

numpy only, on both sides: a runner makes a model's answer with it, and whoever asked reads the answer with it. A box is
x0, y0, x1, y1 with y downwards, in pixels of the image that a detector was given unless a function says otherwise.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtimes.errors import ModelError
from runtimes.protocol import Prediction
from runtimes.signature import ClassName, Field, Signature

IMAGE, BOXES, SCORES, LABELS, POLYGONS = "image", "boxes", "scores", "labels", "polygons"
LOW_SCORE = 0.05  # below it a detector tells nothing; whoever asks cuts higher
MOST_DETECTIONS = 1_000  # on one page
MOST_CORNERS = 2_000  # of one polygon
SAME_THING = 0.5  # the overlap from which a found box is the true one

Box = tuple[float, float, float, float]
Polygon = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Detection:
    """One thing on an image: what it is, how sure the model is, and where. polygon: its outline, where the model gives
    one."""

    label: str
    score: float
    box: Box
    polygon: Polygon | None = None


def signature_of(labels: Sequence[ClassName], *, has_polygons: bool = False) -> Signature:
    """What every detector takes and gives: one image of any size as a row, and its detections, the surest first."""
    outputs = [
        Field(BOXES, "float32", (-1, -1, 4)),
        Field(SCORES, "float32", (-1, -1)),
        Field(LABELS, "int64", (-1, -1)),
    ]
    outputs += [Field(POLYGONS, "float32", (-1, -1, -1, 2))] if has_polygons else []
    return Signature("tensor", (Field(IMAGE, "uint8", (-1, -1, -1, 3)),), tuple(outputs), tuple(labels))


def prediction_of(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, polygons: np.ndarray | None = None
) -> Prediction:
    """A detector's answer for one image, from (k, 4) boxes, (k,) scores, (k,) labels and (k, p, 2) polygons."""
    order = np.argsort(-scores, kind="stable")[:MOST_DETECTIONS]
    outputs: dict[str, np.ndarray] = {
        BOXES: boxes[order].reshape(1, -1, 4).astype(np.float32),
        SCORES: scores[order].reshape(1, -1).astype(np.float32),
        LABELS: labels[order].reshape(1, -1).astype(np.int64),
    }
    if polygons is not None:
        outputs[POLYGONS] = polygons[order][None].astype(np.float32)
    return Prediction(outputs)


def detections_of(
    prediction: Prediction,
    classes: Sequence[ClassName],
    min_score: float = 0.0,
    size: tuple[int, int] | None = None,
) -> list[Detection]:
    """The detections in a detector's answer for one image, the surest first; the answer may be hostile.

    size: height and width of the image, into which boxes and polygons are clipped; what is left empty is left out.

    Raises:
        ModelError: shapes do not fit together, a number is not finite, or a label is none of the classes.
    """
    boxes, scores, labels, polygons = _checked(prediction.outputs, len(classes))
    height, width = size or (math.inf, math.inf)
    found = []
    for place in np.argsort(-scores, kind="stable"):
        if scores[place] < min_score:
            break
        box = _clipped(boxes[place], width, height)
        if box[2] > box[0] and box[3] > box[1]:
            outline = None if polygons is None else _outline(polygons[place], width, height)
            found.append(Detection(str(classes[labels[place]]), float(scores[place]), box, outline))
    return found


def _checked(
    outputs: Mapping[str, np.ndarray], classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    try:
        boxes, scores, labels = outputs[BOXES][0], outputs[SCORES][0], outputs[LABELS][0]
    except (KeyError, IndexError) as error:
        raise _wrong(f"it has no {BOXES}, {SCORES} and {LABELS} for an image") from error
    count = len(scores)
    if scores.ndim != 1 or boxes.shape != (count, 4) or labels.shape != (count,) or count > MOST_DETECTIONS:
        raise _wrong("its boxes, scores and labels do not fit together")
    if scores.dtype.kind != "f" or boxes.dtype.kind != "f" or labels.dtype.kind not in "iu":
        raise _wrong("its boxes, scores and labels are not the numbers that they must be")
    if not np.isfinite(boxes).all() or not ((scores >= 0) & (scores <= 1)).all():
        raise _wrong("a box or a score is no number that it may be")
    if count and not ((labels >= 0) & (labels < classes)).all():
        raise _wrong("a label is none of its classes")
    polygons = outputs.get(POLYGONS)
    if polygons is not None:
        polygons = polygons[0]
        if polygons.dtype.kind != "f" or polygons.ndim != 3 or polygons.shape[::2] != (count, 2):
            raise _wrong("its polygons are not those of its boxes")
        if polygons.shape[1] > MOST_CORNERS:
            raise _wrong("a polygon has too many corners")
    return boxes, scores, labels, polygons


def _wrong(why: str) -> ModelError:
    return ModelError(f"The model's answer is not that of a detector: {why}.", "wrong_output")


def _clipped(box: np.ndarray, width: float, height: float) -> Box:
    x0, y0, x1, y1 = (float(value) for value in box)
    return (min(max(x0, 0.0), width), min(max(y0, 0.0), height), min(max(x1, 0.0), width), min(max(y1, 0.0), height))


def _outline(corners: np.ndarray, width: float, height: float) -> Polygon | None:
    """The polygon's corners without its padding; None where fewer than three are left."""
    kept = corners[np.isfinite(corners).all(axis=1)]
    inside = tuple((min(max(float(x), 0.0), width), min(max(float(y), 0.0), height)) for x, y in kept)
    return inside if len(inside) >= 3 else None


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, m) intersection over union of (n, 4) and (m, 4) boxes; of empty boxes 0."""
    boxes, others = boxes.astype(np.float64), others.astype(np.float64)
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    sides = np.clip(np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - corner, 0, None)
    shared = sides[..., 0] * sides[..., 1]
    whole = _areas(boxes)[:, None] + _areas(others)[None] - shared
    found: np.ndarray = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    return found


def _areas(boxes: np.ndarray) -> np.ndarray:
    areas: np.ndarray = np.clip(boxes[:, 2] - boxes[:, 0], 0, None) * np.clip(boxes[:, 3] - boxes[:, 1], 0, None)
    return areas


def suppress(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, *, overlap: float = 0.5, most: int = MOST_DETECTIONS
) -> np.ndarray:
    """The places of the boxes that stay, the surest first: of boxes of one label that overlap more, the surest only.

    Greedy non-maximum suppression. Boxes of different labels are moved apart, so that one pass does for all labels.
    """
    if len(scores) == 0:
        return np.empty(0, dtype=np.int64)
    wide = boxes.astype(np.float64)
    apart = wide + (labels * (np.abs(wide).max() * 2 + 1))[:, None]
    waiting, kept = np.argsort(-scores, kind="stable"), list[int]()
    while len(waiting) and len(kept) < most:
        first, rest = waiting[0], waiting[1:]
        kept.append(int(first))
        waiting = rest[overlaps(apart[first : first + 1], apart[rest])[0] <= overlap]
    return np.array(kept, dtype=np.int64)


@dataclass(frozen=True)
class Placement:
    """How an image was put into a detector's input: x there = x here * scale_x + left, and y alike.

    size: height and width of the image. inner: height and width that it has in the input.
    """

    size: tuple[int, int]
    inner: tuple[int, int]
    scale_x: float
    scale_y: float
    left: int = 0
    top: int = 0

    def back(self, points: np.ndarray) -> np.ndarray:
        """Boxes (…, 4) or points (…, 2) of the input as those of the image; they may lie outside of it."""
        pairs = points.reshape(*points.shape[:-1], points.shape[-1] // 2, 2).astype(np.float64)
        moved: np.ndarray = (pairs - (self.left, self.top)) / (self.scale_x, self.scale_y)
        return moved.reshape(points.shape)

    def onto(self, points: np.ndarray) -> np.ndarray:
        """Boxes (…, 4) or points (…, 2) of the image as those of the input."""
        pairs = points.reshape(*points.shape[:-1], points.shape[-1] // 2, 2).astype(np.float64)
        moved: np.ndarray = pairs * (self.scale_x, self.scale_y) + (self.left, self.top)
        return moved.reshape(points.shape)


def stretched(size: tuple[int, int], wanted: tuple[int, int]) -> Placement:
    """The image drawn out to just the wanted height and width."""
    return Placement(size, wanted, wanted[1] / size[1], wanted[0] / size[0])


def letterboxed(size: tuple[int, int], wanted: tuple[int, int], *, is_centred: bool = True) -> Placement:
    """The image as large as it may be without being distorted, in the middle of the input or in its upper left."""
    scale = min(wanted[0] / size[0], wanted[1] / size[1])
    inner = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = ((wanted[0] - inner[0]) // 2, (wanted[1] - inner[1]) // 2) if is_centred else (0, 0)
    return Placement(size, inner, inner[1] / size[1], inner[0] / size[0], left, top)


def within(size: tuple[int, int], longest: int, multiple: int = 1) -> tuple[int, int]:
    """The height and width of an image whose longer side is at most so long, each rounded up to a multiple."""
    scale = min(1.0, longest / max(size))
    height, width = (max(1, math.ceil(side * scale / multiple)) * multiple for side in size)
    return height, width


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The (h, w, c) image in another height and width as float32, each pixel the weighted mean of those it stands for.

    A triangle filter that widens as an image shrinks, so that thin lines grow pale and do not vanish.
    """
    half = _along_rows(image, size[0])
    return _along_rows(half.swapaxes(0, 1), size[1]).swapaxes(0, 1)


def _along_rows(image: np.ndarray, count: int) -> np.ndarray:
    if len(image) == count:
        return image.astype(np.float32, copy=False)
    scale = len(image) / count
    reach = max(scale, 1.0)
    centres = (np.arange(count) + 0.5) * scale - 0.5
    first = np.ceil(centres - reach).astype(np.int64)
    taps = math.ceil(2 * reach) + 1
    places = first[:, None] + np.arange(taps)
    weights = np.clip(1 - np.abs(places - centres[:, None]) / reach, 0, None)
    weights[(places < 0) | (places >= len(image))] = 0
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    places = places.clip(0, len(image) - 1)
    made = np.zeros((count, *image.shape[1:]), dtype=np.float32)
    for tap in range(taps):
        made += image[places[:, tap]] * weights[:, tap].reshape(-1, *[1] * (image.ndim - 1))
    return made


def in_points(box: Box, image: tuple[int, int], page: tuple[float, float]) -> Box:
    """A box in pixels of a page's image as points of the page, from its upper left corner.

    image: height and width in pixels. page: width and height in points, as a `PageSize` has them.
    """
    across, down = page[0] / image[1], page[1] / image[0]
    return (box[0] * across, box[1] * down, box[2] * across, box[3] * down)


def in_pixels(box: Box, image: tuple[int, int], page: tuple[float, float]) -> Box:
    """A box in points of a page as pixels of its image: what `in_points` undoes."""
    across, down = image[1] / page[0], image[0] / page[1]
    return (box[0] * across, box[1] * down, box[2] * across, box[3] * down)


@dataclass(frozen=True)
class AnnotatedImage:
    """An image by its name and what is on it."""

    file_name: str
    height: int
    width: int
    detections: Sequence[Detection]


def coco_document(images: Sequence[AnnotatedImage], labels: Sequence[str]) -> dict[str, Any]:
    """COCO JSON: `images`, `annotations` with `bbox` as x, y, width, height and a score, and `categories` from 1 on."""
    numbers = {label: number for number, label in enumerate(labels, start=1)}
    pages = [
        {"id": number, "file_name": image.file_name, "height": image.height, "width": image.width}
        for number, image in enumerate(images, start=1)
    ]
    found = [(number, one) for number, image in enumerate(images, start=1) for one in image.detections]
    annotations = [
        {"id": place, "image_id": number, **_annotation(one, numbers[one.label])}
        for place, (number, one) in enumerate(found, start=1)
    ]
    categories = [{"id": number, "name": label, "supercategory": ""} for label, number in numbers.items()]
    return {"images": pages, "annotations": annotations, "categories": categories}


def _annotation(one: Detection, category: int) -> dict[str, Any]:
    x0, y0, x1, y1 = one.box
    outline = [[round(value, 2) for corner in one.polygon for value in corner]] if one.polygon else []
    box = [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)]
    area = round((x1 - x0) * (y1 - y0), 2)
    return {
        "category_id": category,
        "bbox": box,
        "area": area,
        "segmentation": outline,
        "iscrowd": 0,
        "score": round(one.score, 6),
    }


def average_precision(
    truth: Sequence[Sequence[Detection]], found: Sequence[Sequence[Detection]], overlap: float = SAME_THING
) -> dict[str, float]:
    """Each true label's average precision over all images: the area under its precision, made monotone, by recall.

    As PASCAL VOC (2010 on) and COCO count it: the surest box first, each true box is found once.
    """
    labels = sorted({one.label for image in truth for one in image})
    return {label: _average_precision(label, truth, found, overlap) for label in labels}


def mean_average_precision(
    truth: Sequence[Sequence[Detection]], found: Sequence[Sequence[Detection]], overlap: float = SAME_THING
) -> float:
    """The mean of all labels' average precision, mAP@0.5 by default; 0 where there is no truth."""
    by_label = average_precision(truth, found, overlap)
    return sum(by_label.values()) / len(by_label) if by_label else 0.0


def _average_precision(
    label: str, truth: Sequence[Sequence[Detection]], found: Sequence[Sequence[Detection]], overlap: float
) -> float:
    true_boxes = {place: _boxes_of(label, image) for place, image in enumerate(truth)}
    total = sum(map(len, true_boxes.values()))
    ranked = [(one.score, place, one.box) for place, image in enumerate(found) for one in image if one.label == label]
    ranked.sort(key=lambda entry: -entry[0])
    taken: defaultdict[int, set[int]] = defaultdict(set)
    hits = np.array([_is_hit(np.array([box]), true_boxes[at], taken[at], overlap) for _, at, box in ranked], dtype=bool)
    if not hits.any():
        return 0.0
    right = np.cumsum(hits)
    recall, precision = right / total, right / np.arange(1, len(hits) + 1)
    monotone = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * monotone))


def _boxes_of(label: str, image: Sequence[Detection]) -> np.ndarray:
    return np.array([one.box for one in image if one.label == label], dtype=np.float64).reshape(-1, 4)


def _is_hit(box: np.ndarray, truth: np.ndarray, taken: set[int], overlap: float) -> bool:
    """Whether the box is a true one that no surer box has taken."""
    if not len(truth):
        return False
    shared = overlaps(box, truth)[0]
    best = int(shared.argmax())
    if shared[best] < overlap or best in taken:
        return False
    taken.add(best)
    return True
