"""What is done with boxes: overlaps, suppression, coordinates, a hostile answer, records, average precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtimes import detection
from runtimes.detection import AnnotatedImage, Detection
from runtimes.errors import ModelError
from runtimes.protocol import Prediction

CLASSES = ("title", "table")


def answer(boxes: object, scores: object, labels: object, **others: object) -> Prediction:
    outputs: dict[str, np.ndarray] = {
        "boxes": np.array([boxes], np.float32).reshape(1, -1, 4),
        "scores": np.array([scores], np.float32),
        "labels": np.array([labels], np.int64),
    }
    return Prediction({**outputs, **{name: np.asarray(value) for name, value in others.items()}})


def found(label: str, score: Any, *box: float) -> Detection:
    return Detection(label, score, (box[0], box[1], box[2], box[3]))


def test_an_answer_becomes_detections_the_surest_first_and_inside_of_the_image() -> None:
    prediction = answer([[-5, 1, 30, 40], [1, 2, 3, 4], [90, 90, 99, 99]], [0.5, 0.9, 0.8], [1, 0, 0])

    detections = detection.detections_of(prediction, CLASSES, 0.4, size=(50, 20))

    assert detections == [
        found("title", pytest.approx(0.9), 1, 2, 3, 4),
        found("table", 0.5, 0, 1, 20, 40),
    ]
    assert [one.label for one in detection.detections_of(prediction, CLASSES, 0.85)] == ["title"]
    assert detection.detections_of(answer([], [], []), CLASSES) == []


def test_an_outline_loses_its_padding() -> None:
    corners = np.full((1, 2, 4, 2), np.nan, np.float32)
    corners[0, 0, :3] = [[0, 0], [9, 0], [9, 99]]
    prediction = answer([[0, 0, 9, 9], [0, 0, 5, 5]], [0.9, 0.8], [0, 0], polygons=corners)

    first, second = detection.detections_of(prediction, CLASSES, size=(10, 10))

    assert first.polygon == ((0, 0), (9, 0), (9, 10))
    assert second.polygon is None


@pytest.mark.parametrize(
    "outputs",
    [
        {"boxes": np.zeros((1, 2, 3), np.float32)},
        {"boxes": np.full((1, 2, 4), np.nan, np.float32)},
        {"boxes": np.zeros((1, 2, 4), np.int64)},
        {"boxes": np.zeros((0, 2, 4), np.float32)},
        {"scores": np.array([[2.0, 0.1]], np.float32)},
        {"scores": np.array([[np.nan, 0.1]], np.float32)},
        {"scores": np.zeros((1, 3), np.float32)},
        {"labels": np.array([[0, 7]])},
        {"labels": np.array([[0, -1]])},
        {"labels": np.array([["a", "b"]], dtype=object)},
        {"polygons": np.zeros((1, 1, 3, 2), np.float32)},
        {"polygons": np.zeros((1, 2, 3000, 2), np.float32)},
    ],
    ids=lambda outputs: f"{next(iter(outputs))}-{next(iter(outputs.values())).shape}",
)
def test_an_answer_that_is_none_is_refused(outputs: dict[str, np.ndarray]) -> None:
    right = answer([[0, 0, 1, 1], [0, 0, 2, 2]], [0.9, 0.8], [0, 1])
    with pytest.raises(ModelError) as refused:
        detection.detections_of(Prediction({**right.outputs, **outputs}), CLASSES)
    assert refused.value.code == "wrong_output"


def test_of_boxes_that_overlap_the_surest_of_a_label_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [50, 50, 60, 60], [5, 0, 15, 10]], float)
    scores, labels = np.array([0.8, 0.9, 0.7, 0.1, 0.6]), np.array([0, 0, 1, 0, 0])

    kept = detection.suppress(boxes, scores, labels, overlap=0.5)

    assert kept.tolist() == [1, 2, 4, 3]
    assert detection.suppress(boxes[:0], scores[:0], labels[:0]).tolist() == []


def test_overlaps_are_shared_area_over_the_whole() -> None:
    shared = detection.overlaps(np.array([[0, 0, 2, 2], [3, 3, 3, 3]]), np.array([[1, 0, 3, 2], [0, 0, 2, 2]]))
    assert shared.tolist() == [[pytest.approx(2 / 6), 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("place", [detection.stretched, detection.letterboxed], ids=["stretched", "letterboxed"])
@pytest.mark.parametrize("size", [(1100, 850), (37, 512), (64, 64), (1, 9)], ids=str)
def test_what_goes_onto_an_input_comes_back(place: object, size: tuple[int, int]) -> None:
    placed = place(size, (64, 96))  # type: ignore[operator]
    boxes = np.array([[0, 0, size[1], size[0]], [1, 2, 5, 8]], float)

    onto = placed.onto(boxes)

    assert placed.back(onto) == pytest.approx(boxes)
    assert (onto[0].reshape(2, 2) <= (96 + 1e-9, 64 + 1e-9)).all()
    assert placed.back(placed.onto(boxes[:, :2])) == pytest.approx(boxes[:, :2])


def test_an_image_is_made_smaller_as_pillow_does_it() -> None:
    image = np.random.default_rng(3).integers(0, 256, (90, 61, 3), dtype=np.uint8)
    for size in ((40, 33), (90, 30), (130, 100)):
        known = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR), dtype=float)
        assert np.abs(detection.resized(image, size) - known).max() <= 1.01


def test_pixels_and_points_are_two_names_of_a_place() -> None:
    in_points = detection.in_points((0, 0, 1240, 877), (1754, 1240), (595.2, 841.9))
    assert in_points == pytest.approx((0, 0, 595.2, 420.95))
    assert detection.in_pixels(in_points, (1754, 1240), (595.2, 841.9)) == pytest.approx((0, 0, 1240, 877))


def test_records_are_those_of_coco() -> None:
    outlined = Detection("table", 0.75, (1, 2, 4, 8), ((1, 2), (4, 2), (4, 8)))
    pages = [
        AnnotatedImage("1.png", 20, 10, [found("title", 1, 0, 0, 5, 5)]),
        AnnotatedImage("2.png", 9, 9, [outlined]),
    ]

    document = detection.coco_document(pages, CLASSES)

    assert [one["name"] for one in document["categories"]] == ["title", "table"]
    assert document["images"][1] == {"id": 2, "file_name": "2.png", "height": 9, "width": 9}
    assert document["annotations"][1] == {
        "id": 2, "image_id": 2, "category_id": 2, "bbox": [1, 2, 3, 6], "area": 18, "iscrowd": 0, "score": 0.75,
        "segmentation": [[1, 2, 4, 2, 4, 8]],
    }  # fmt: skip


def test_average_precision_is_the_area_under_precision_by_recall() -> None:
    truth = [[found("title", 1, 0, 0, 10, 10), found("title", 1, 20, 0, 30, 10)], [found("table", 1, 0, 0, 9, 9)]]
    first_right = [
        found("title", 0.9, 0, 0, 10, 9),
        found("title", 0.8, 50, 50, 60, 60),
        found("title", 0.7, 20, 0, 30, 9),
    ]

    by_label = detection.average_precision(truth, [first_right, [found("table", 0.5, 0, 0, 9, 9)]])

    assert by_label == {"title": pytest.approx(0.5 + 0.5 * 2 / 3), "table": 1.0}
    assert detection.mean_average_precision(truth, [[], []]) == 0.0
    assert detection.mean_average_precision(truth, truth) == 1.0


def test_a_true_box_is_found_once() -> None:
    truth = [[found("title", 1, 0, 0, 10, 10), found("title", 1, 50, 50, 60, 60)]]
    twice = [[found("title", 0.9, 0, 0, 10, 10), found("title", 0.8, 0, 0, 10, 10)]]
    assert detection.average_precision(truth, twice) == {"title": 0.5}
