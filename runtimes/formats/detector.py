"""What the adapters of detectors share: the page that comes in, what stays of the candidates, and the proof."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from runtimes import detection
from runtimes.detection import Placement
from runtimes.errors import ArtifactRejected, describe
from runtimes.protocol import Findings, Prediction, Predictor
from runtimes.signature import Batch, ClassName

MOST_CANDIDATES = 4_000  # boxes that suppression looks at, the surest ones
SAMPLE_SIZES = ((240, 320), (400, 250))


def page_of(batch: Batch, *, probabilities: bool) -> np.ndarray:
    """The one image in a detector's batch.

    Raises:
        ValueError: there are several, or it is none.
    """
    if probabilities:
        raise ValueError("a detector's scores come with its boxes; it has no table of probabilities")
    if isinstance(batch, dict) or batch.ndim != 4 or batch.shape[3] != 3 or batch.dtype != np.uint8:
        raise ValueError("a detector takes an image as uint8 with the shape (1, height, width, 3)")
    if len(batch) != 1 or 0 in batch.shape:
        raise ValueError("a detector takes one image at a time")
    image: np.ndarray = batch[0]
    return image


def found_on(
    place: Placement,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    min_score: float = detection.LOW_SCORE,
    overlap: float = detection.SAME_THING,
) -> Prediction:
    """What stays of the candidates on a detector's input, in pixels of the image that was put into it.

    boxes: (n, 4) corners in pixels of the input. scores: (n,). labels: (n,) indexes of the classes.
    """
    usable = np.isfinite(boxes).all(axis=1) & (scores >= min_score) & (labels >= 0) & (labels < classes)
    best = np.flatnonzero(usable)
    best = best[np.argsort(-scores[best], kind="stable")][:MOST_CANDIDATES]
    boxes, scores, labels = boxes[best], scores[best].clip(0, 1), labels[best]
    kept = detection.suppress(boxes, scores, labels, overlap=overlap)
    height, width = place.size
    there = place.back(boxes[kept]).clip(0, (width, height, width, height))
    has_area = (there[:, 2] > there[:, 0]) & (there[:, 3] > there[:, 1])
    return detection.prediction_of(there[has_area], scores[kept][has_area], labels[kept][has_area])


def proved(predictor: Predictor, classes: Sequence[ClassName]) -> None:
    """Go on only if the detector answers two made-up pages as it must.

    Raises:
        ArtifactRejected: it does not.
    """
    for height, width in SAMPLE_SIZES:
        page = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
        try:
            answer = predictor.predict(page, probabilities=False)
            detection.detections_of(answer, classes, size=(height, width))
        except Exception as error:
            reason = f"A made-up page could not be looked at as declared ({describe(error, 300)})."
            raise ArtifactRejected("detection_mismatch", reason) from error


def findings_of(
    name: str,
    type_name: str,
    classes: Sequence[ClassName],
    started: float,
    made_with: dict[str, str] | None = None,
    warnings: list[str] | None = None,
    *,
    has_polygons: bool = False,
) -> Findings:
    """The findings of a detector that was loaded from `started` of time.monotonic() until now."""
    signature = detection.signature_of(classes, has_polygons=has_polygons)
    return Findings(
        name, "detection", signature, type_name, made_with or {}, warnings or [], time.monotonic() - started
    )
