"""How an ONNX graph's tensors are to be read as detections: what an uploader declares as `detection`.

    {"layout": "yolo", "labels": ["title", "table"], "input": {"size": [640, 640], "scale": 0.00392}}

layout: `yolo` is one output of boxes (cx, cy, w, h) with a score a label, in rows or in columns; with `objectness`, a
score of its own comes before them. `boxes_scores_labels` is three outputs, as torchvision's detectors have them. `detr`
is logits and boxes (cx, cy, w, h as parts of the input) for each query.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from runtimes.errors import InvalidSignature, plain

LAYOUTS = ("yolo", "boxes_scores_labels", "detr")
MOST_SIDE = 4_096
MOST_LABELS = 10_000
MOST_LABEL_CHARS = 200
MOST_OUTPUTS = 16

Numbers = tuple[float, float, float]


@dataclass(frozen=True)
class InputLayout:
    """How a page becomes the graph's input: (pixel * scale - mean) / std, in a place of this height and width.

    size: None where the graph says it. channels: `rgb` or `bgr`. pad: the grey round a letterboxed page, before scale.
    """

    size: tuple[int, int] | None = None
    scale: float = 1 / 255
    layout: str = "nchw"
    resize: str = "letterbox"
    channels: str = "rgb"
    mean: Numbers = (0.0, 0.0, 0.0)
    std: Numbers = (1.0, 1.0, 1.0)
    pad: float = 114.0
    is_centred: bool = True


@dataclass(frozen=True)
class DetectionLayout:
    """What was declared.

    outputs: the graph's names for `detections`, or `boxes`, `scores`, `labels` and `logits`; by place where not named.
    coordinates: `pixels` of the input, or `unit` for parts of it. box: `xyxy` or `cxcywh`. first_label: the number of
    labels[0] in the graph's labels. activation: of detr's logits. overlap: of boxes of one label, for suppression.
    """

    layout: str
    labels: tuple[str, ...]
    input: InputLayout = field(default_factory=InputLayout)
    outputs: Mapping[str, str] = field(default_factory=dict)
    box: str = ""
    coordinates: str = ""
    objectness: bool = False
    first_label: int = 0
    activation: str = "softmax"
    min_score: float = 0.05
    overlap: float = 0.5

    @classmethod
    def from_json(cls, value: object, labels: object = None) -> DetectionLayout:
        """What a JSON object declares; labels: those of the version's metadata, where the object has none.

        Raises:
            InvalidSignature: with a sentence that says what is wrong.
        """
        given = _object(value, "detection", {one.name for one in fields(cls)})
        layout = _one_of(given, "layout", LAYOUTS, None)
        return cls(
            layout=layout,
            labels=_labels(given.get("labels") or labels),
            input=_input(given.get("input", {})),
            outputs=_outputs(given.get("outputs", {})),
            box=_one_of(given, "box", ("xyxy", "cxcywh"), "xyxy" if layout == "boxes_scores_labels" else "cxcywh"),
            coordinates=_one_of(given, "coordinates", ("pixels", "unit"), "unit" if layout == "detr" else "pixels"),
            objectness=_flag(given, "objectness", default=False),
            first_label=int(_number(given, "first_label", 0, -MOST_LABELS, MOST_LABELS)),
            activation=_one_of(given, "activation", ("softmax", "sigmoid"), "softmax"),
            min_score=_number(given, "min_score", 0.05, 0, 1),
            overlap=_number(given, "overlap", 0.5, 0, 1),
        )


def _input(value: object) -> InputLayout:
    given = _object(value, "detection.input", {one.name for one in fields(InputLayout)})
    return InputLayout(
        size=_size(given.get("size")),
        scale=_number(given, "scale", 1 / 255, 1e-9, 1e3),
        layout=_one_of(given, "layout", ("nchw", "nhwc"), "nchw"),
        resize=_one_of(given, "resize", ("letterbox", "stretch"), "letterbox"),
        channels=_one_of(given, "channels", ("rgb", "bgr"), "rgb"),
        mean=_three(given, "mean", 0.0, -1e4),
        std=_three(given, "std", 1.0, 1e-9),
        pad=_number(given, "pad", 114.0, 0, 255),
        is_centred=_flag(given, "is_centred", default=True),
    )


def _object(value: object, name: str, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _invalid(f"{name} is an object")
    strange = sorted(str(key) for key in value.keys() - known)
    if strange:
        raise _invalid(f"{name} has no '{plain(strange[0], 40)}', only {', '.join(sorted(known))}")
    return value


def _labels(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MOST_LABELS:
        raise _invalid("labels is a list of names, in the order of the graph's numbers")
    if not all(isinstance(name, str) and 0 < len(name) <= MOST_LABEL_CHARS for name in value):
        raise _invalid(f"a label is a text of 1 to {MOST_LABEL_CHARS} characters")
    if len(set(value)) != len(value):
        raise _invalid("a label comes twice")
    return tuple(value)


def _outputs(value: object) -> dict[str, str]:
    known = {"detections", "boxes", "scores", "labels", "logits"}
    given = _object(value, "detection.outputs", known)
    if not all(isinstance(name, str) and len(name) <= 200 for name in given.values()):
        raise _invalid("detection.outputs names the graph's outputs")
    return dict(given)


def _size(value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = list(value) if isinstance(value, list | tuple) else []
    if len(sides) != 2 or not all(type(side) is int and 8 <= side <= MOST_SIDE for side in sides):
        raise _invalid(f"size is [height, width], each from 8 to {MOST_SIDE}")
    return sides[0], sides[1]


def _one_of(given: Mapping[str, Any], name: str, choices: tuple[str, ...], default: str | None) -> str:
    value = given.get(name, default)
    if value not in choices:
        raise _invalid(f"{name} is one of {', '.join(choices)}")
    return str(value)


def _number(given: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise _invalid(f"{name} is a number from {least:g} to {most:g}")
    return float(value)


def _flag(given: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise _invalid(f"{name} is true or false")
    return value


def _three(given: Mapping[str, Any], name: str, default: float, least: float) -> Numbers:
    value = given.get(name, [default] * 3)
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise _invalid(f"{name} is three numbers, one a channel")
    first, second, third = (_number({name: one}, name, default, least, 1e4) for one in value)
    return first, second, third


def _invalid(why: str) -> InvalidSignature:
    return InvalidSignature(f"The declared detection is not right: {why}.", "invalid_detection")
