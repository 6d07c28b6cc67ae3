"""The fit of a detector, inside its runner: read images and boxes, hold some out, learn, measure, send the artifact."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from runtimes import detection
from runtimes.bundle import FileSlice
from runtimes.coco_files import Annotated, CocoFile, InvalidImages
from runtimes.detection import Detection
from runtimes.errors import ModelError, plain
from runtimes.formats.torch_detector import Network, Size, TorchDetector, onto_input
from runtimes.messages import Connection
from runtimes.trainers.page_detector import PageDetectorParams, PageDetectorTrainer
from runtimes.trainers.page_learning import Page, learn

CHUNK_BYTES = 1 << 20
READ, LEARNED = 10.0, 90.0
DEFAULT_FRACTION = 0.2
FILE_NAME = "model.pth"
MOST_TOLD = 50  # labels whose own precision is told


def fit(order: Mapping[str, Any], channel: Connection, dataset_fd: int) -> dict[str, Any]:
    """The report of one fit, its progress and its artifact sent on the channel before.

    Raises:
        ModelError: the images, the annotations or the parameters do not do.
    """
    params = _params(order)
    torch.set_num_threads(min(params.threads, len(os.sched_getaffinity(0))))
    _tell(channel, 0.0, "reading")
    file = CocoFile(FileSlice.whole(dataset_fd), os.fstat(dataset_fd).st_size)
    train, held_out = _split(file.images, dict(order.get("validation") or {}))
    size = Size(params.width, params.longest_side)
    pages = _pages(file, train, size, channel)
    _tell(channel, READ, "fitting")

    def watch(done: float, metrics: dict[str, float]) -> None:
        _tell(channel, READ + done * (LEARNED - READ), "fitting", metrics)

    network = learn(pages, len(file.labels), params, watch)
    _tell(channel, LEARNED, "evaluating")
    detector = TorchDetector(network, size, file.labels)
    metrics = measured(file, held_out, detector) if held_out else {}
    _tell(channel, 98.0, "saving", metrics)
    _send(network, channel)
    return _report(size, file.labels, metrics, len(held_out))


def _params(order: Mapping[str, Any]) -> PageDetectorParams:
    if order["trainer"] != PageDetectorTrainer.name:
        raise ModelError("This trainer takes tables; images are for page_detector.", "unknown_trainer")
    try:
        return PageDetectorParams.model_validate(dict(order["params"]))
    except ValueError as error:
        raise ModelError(plain(error), "invalid_parameter") from error


def _split(images: Sequence[Annotated], validation: Mapping[str, Any]) -> tuple[list[Annotated], list[Annotated]]:
    """The images to learn from, and those to measure on."""
    kind = validation.get("kind", "holdout")
    if kind == "kfold":
        raise ModelError("A detector is measured on images held out, not by folds.", "invalid_parameter")
    if kind == "none":
        return list(images), []
    fraction, seed = float(validation.get("fraction", DEFAULT_FRACTION)), int(validation.get("seed", 0))
    count = max(1, round(len(images) * fraction))
    if count >= len(images):
        raise InvalidImages("There are too few images to hold some out.")
    order = np.random.default_rng(seed).permutation(len(images))
    return [images[place] for place in sorted(order[count:])], [images[place] for place in sorted(order[:count])]


def _pages(file: CocoFile, images: Sequence[Annotated], size: Size, channel: Connection) -> list[Page]:
    """The images as the network sees them."""
    numbers = {label: number for number, label in enumerate(file.labels)}
    pages = []
    for place, image in enumerate(images):
        fed, onto = onto_input(file.pixels(image), size.longest_side)
        boxes = onto.onto(np.array([one.box for one in image.boxes], dtype=np.float64).reshape(-1, 4))
        labels = [numbers[one.label] for one in image.boxes]
        pages.append(Page(fed, torch.from_numpy(boxes).float(), torch.tensor(labels, dtype=torch.long)))
        if place % 50 == 0:
            _tell(channel, READ * place / len(images), "reading")
    if not any(len(page.boxes) for page in pages):
        raise InvalidImages("The images to learn from have no boxes.")
    return pages


def measured(file: CocoFile, images: Sequence[Annotated], detector: TorchDetector) -> dict[str, float]:
    """mAP@0.5 and each label's average precision, on these images as they are in the file."""
    truth: list[Sequence[Detection]] = [image.boxes for image in images]
    found = [_found(detector, file.pixels(image)) for image in images]
    by_label = detection.average_precision(truth, found)
    mean = sum(by_label.values()) / len(by_label) if by_label else 0.0
    told = list(by_label.items())[:MOST_TOLD]
    return {"map50": mean, **{f"ap50 {plain(label, 60)}": value for label, value in told}}


def _found(detector: TorchDetector, image: np.ndarray) -> list[Detection]:
    answer = detector.predict(image[None], probabilities=False)
    return detection.detections_of(answer, detector.labels, size=(image.shape[0], image.shape[1]))


def _send(network: Network, channel: Connection) -> None:
    out = io.BytesIO()
    torch.save(network.state_dict(), out)
    view = out.getbuffer()
    for start in range(0, len(view), CHUNK_BYTES):
        channel.send({"artifact": True}, [view[start : start + CHUNK_BYTES]])


def _report(size: Size, labels: list[str], metrics: dict[str, float], held_out: int) -> dict[str, Any]:
    return {
        "format": "torch",
        "task": "detection",
        "signature": detection.signature_of(labels).to_json(),
        "input_example": None,
        "artifact_name": FILE_NAME,
        "declared": {"architecture": size.to_json(), "labels": labels},
        "libraries": {},
        "metrics": metrics,
        "evaluation": {"rows": held_out, "metrics": metrics},
    }


def _tell(channel: Connection, percent: float, stage: str, metrics: Mapping[str, float] | None = None) -> None:
    channel.send({"percent": percent, "stage": stage, **({"metrics": dict(metrics)} if metrics else {})})
