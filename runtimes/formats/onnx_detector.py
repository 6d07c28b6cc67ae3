"""ONNX graphs whose declared outputs are detections: pages in, boxes of the contract out (`runtimes.detection`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from runtimes import detection
from runtimes.detection import Placement
from runtimes.detection_layout import DetectionLayout
from runtimes.errors import ArtifactRejected, plain
from runtimes.formats.compiled import session_of
from runtimes.formats.detector import found_on, page_of
from runtimes.protocol import Prediction
from runtimes.signature import Batch

INPUT_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
# what a detector needs besides what any graph may hold; its runner's limits hold for these, too
OPERATORS = frozenset({"Resize", "Pad", "NonMaxSuppression", "RoiAlign"})


class OnnxDetector:
    """A session fed with one page at a time, whose outputs are read as they were declared."""

    is_batchable = False

    def __init__(self, data: bytes, declared: DetectionLayout) -> None:
        self._session, self.declared = session_of(data), declared
        entry = self._session.get_inputs()[0]
        self._input_name, self._dtype = entry.name, _dtype_of(entry)
        self._size = _size_of(entry, declared)
        self._names = [output.name for output in self._session.get_outputs()]
        self._read = READERS[declared.layout](declared, self._names)

    def predict(self, batch: Batch, *, probabilities: bool) -> Prediction:
        """The detections on the one page of the batch."""
        image = page_of(batch, probabilities=probabilities)
        place = self._placement(image.shape[:2])
        values = self._session.run(self._names, {self._input_name: self._fed(image, place)})
        boxes, scores, labels = self._read(dict(zip(self._names, values, strict=True)))
        told = self.declared
        return found_on(
            place,
            self._in_pixels(boxes),
            scores,
            labels,
            classes=len(told.labels),
            min_score=told.min_score,
            overlap=told.overlap,
        )

    def _placement(self, size: tuple[int, int]) -> Placement:
        told = self.declared.input
        if told.resize == "stretch":
            return detection.stretched(size, self._size)
        return detection.letterboxed(size, self._size, is_centred=told.is_centred)

    def _fed(self, image: np.ndarray, place: Placement) -> np.ndarray:
        told = self.declared.input
        whole = np.full((*self._size, 3), told.pad, dtype=np.float32)
        height, width = place.inner
        whole[place.top : place.top + height, place.left : place.left + width] = detection.resized(image, place.inner)
        if told.channels == "bgr":
            whole = whole[..., ::-1]
        if self._dtype != "uint8":
            mean, std = (np.array(three, np.float32) for three in (told.mean, told.std))
            whole = (whole * np.float32(told.scale) - mean) / std
        row = whole[None] if told.layout == "nhwc" else whole.transpose(2, 0, 1)[None]
        return np.ascontiguousarray(row.round() if self._dtype == "uint8" else row, dtype=self._dtype)

    def _in_pixels(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes as corners in pixels of the graph's input."""
        if self.declared.box == "cxcywh":
            half = boxes[:, 2:] / 2
            boxes = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
        height, width = self._size
        return boxes * (width, height, width, height) if self.declared.coordinates == "unit" else boxes


def declared_in(options: Mapping[str, Any]) -> DetectionLayout | None:
    """What the metadata declares of a detector; None where it is none.

    Raises:
        InvalidSignature: it is not right.
    """
    value = options.get("detection")
    return None if value is None else DetectionLayout.from_json(value, options.get("labels"))


def _dtype_of(entry: Any) -> str:
    dtype = INPUT_DTYPES.get(entry.type)
    if dtype is None or len(entry.shape) != 4:
        raise ArtifactRejected(
            "detection_mismatch", f"The input {plain(entry.name, 80)!r} is no image of 1 row and 3 channels."
        )
    return dtype


def _size_of(entry: Any, declared: DetectionLayout) -> tuple[int, int]:
    """Height and width of the input, as the graph or else the declaration says."""
    sides = entry.shape[2:] if declared.input.layout == "nchw" else entry.shape[1:3]
    fixed = tuple(side if isinstance(side, int) and side > 0 else None for side in sides)
    told = declared.input.size
    if told is None and None in fixed:
        raise ArtifactRejected("detection_mismatch", "The graph takes any size; declare detection.input.size.")
    if told is not None and any(side not in (None, wanted) for side, wanted in zip(fixed, told, strict=True)):
        reason = f"The graph takes {list(fixed)} as height and width, and detection.input.size says {list(told)}."
        raise ArtifactRejected("detection_mismatch", reason)
    height, width = told or fixed
    return int(height or 0), int(width or 0)


class _Reader:
    """Reads a graph's outputs as (n, 4) boxes, (n,) scores and (n,) labels."""

    wanted: tuple[str, ...] = ()

    def __init__(self, declared: DetectionLayout, names: list[str]) -> None:
        self._declared = declared
        by_place = dict(zip(self.wanted, names, strict=False))
        places = {
            role: declared.outputs.get(role) or (role if role in names else by_place.get(role)) for role in self.wanted
        }
        lacking = [role for role in self.wanted if places.get(role) not in names]
        if lacking:
            told = plain(", ".join(names), 200)
            raise ArtifactRejected("detection_mismatch", f"The graph has no output for {lacking[0]}, only {told}.")
        self._places = {role: str(name) for role, name in places.items()}

    def _values(self, outputs: Mapping[str, Any], role: str) -> np.ndarray:
        """A role's output for the one row, in float64."""
        values = np.asarray(outputs[self._places[role]], dtype=np.float64)
        return values[0] if values.ndim > (1 if role in ("scores", "labels") else 2) else values


class _Yolo(_Reader):
    wanted = ("detections",)

    def __call__(self, outputs: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = self._values(outputs, "detections")
        width = 4 + self._declared.objectness + len(self._declared.labels)
        if rows.ndim == 2 and rows.shape[1] != width and rows.shape[0] == width:
            rows = rows.T
        if rows.ndim != 2 or rows.shape[1] != width:
            shape = list(np.shape(outputs[self._places["detections"]]))
            told = f"an output of the shape {shape} does not hold boxes with {len(self._declared.labels)} labels"
            raise ValueError(told)
        table = rows[:, width - len(self._declared.labels) :]
        scores = table.max(axis=1) * (rows[:, 4] if self._declared.objectness else 1.0)
        return rows[:, :4], scores, table.argmax(axis=1)


class _BoxesScoresLabels(_Reader):
    wanted = ("boxes", "scores", "labels")

    def __call__(self, outputs: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        boxes, scores, labels = (self._values(outputs, role) for role in self.wanted)
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes) == len(scores) == len(labels):
            raise ValueError("its outputs are no boxes with as many scores and labels")
        return boxes, scores, labels.astype(np.int64) - self._declared.first_label


class _Detr(_Reader):
    wanted = ("logits", "boxes")

    def __call__(self, outputs: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        logits, boxes = (self._values(outputs, role) for role in self.wanted)
        labels, first = len(self._declared.labels), self._declared.first_label
        if boxes.ndim != 2 or boxes.shape[1] != 4 or logits.ndim != 2 or len(logits) != len(boxes):
            raise ValueError("its outputs are no boxes with as many logits")
        if logits.shape[1] < first + labels:
            raise ValueError(f"a query has {logits.shape[1]} logits, fewer than the {labels} labels")
        if self._declared.activation == "sigmoid":
            table = 1 / (1 + np.exp(-logits.clip(-60, 60)))
        else:
            table = np.exp(logits - logits.max(axis=1, keepdims=True))
            table /= table.sum(axis=1, keepdims=True)
        named = table[:, first : first + labels]
        return boxes, named.max(axis=1), named.argmax(axis=1)


READERS: Mapping[str, type[Any]] = {"yolo": _Yolo, "boxes_scores_labels": _BoxesScoresLabels, "detr": _Detr}
