"""detectron2 models: weights in a `.pth` or `.pkl` file, with the configuration that they were trained by.

They need a library set of their own, which an operator declares. The weights come from the artifact alone, pages are
made ready as detectron2's own DefaultPredictor does it, and the network gives its boxes in the page's pixels.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data import transforms
from detectron2.modeling import build_model, detector_postprocess

from runtimes import detection
from runtimes.errors import ArtifactRejected, describe, lacks_memory, plain
from runtimes.formats import detectron2_config
from runtimes.formats.detector import findings_of, page_of, proved
from runtimes.protocol import Findings, OnStage, Prediction, Predictor, Runtime, Source
from runtimes.signature import Batch

TORCH_FILES = (b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")  # a zip, or torch's older form
# which part of a configuration says how many classes a network tells; of others it is not known
CLASS_COUNTS = {"GeneralizedRCNN": "ROI_HEADS", "PanopticFPN": "ROI_HEADS", "RetinaNet": "RETINANET"}
WITH_MASKS = ("GeneralizedRCNN", "PanopticFPN")
FILLED = frozenset({"pixel_mean", "pixel_std"})  # which come from the configuration
MOST_ROWS = 64  # of a mask that its outline follows
TOGETHER = 16  # masks as large as the page, of 4 MB each on one of 200 dpi
CHANNELS = ("RGB", "BGR")
SHOWN = 5


class Detectron2Model(Runtime):
    """Weights with a detectron2 configuration."""

    name = "detectron2"
    library_set = "detectron2"

    def load(self, source: Source) -> Predictor:
        """The network on the GPU if there is one that it may use, else on the CPU.

        Raises:
            ArtifactRejected: the configuration leads outside, or is not that of these weights.
        """
        return _loaded(source)[0]

    def inspect(self, source: Source, on_stage: OnStage) -> Findings:
        """What the network finds, proved on made-up pages."""
        on_stage("loading")
        started = time.monotonic()
        predictor, notes = _loaded(source)
        on_stage("looking at a made-up page")
        proved(predictor, predictor.labels)
        architecture = plain(f"detectron2 {predictor.architecture}", 80)
        return findings_of(
            self.name, architecture, predictor.labels, started, warnings=notes, has_polygons=predictor.has_masks
        )


def _loaded(source: Source) -> tuple[Detectron2Predictor, list[str]]:
    """The predictor, and what its uploader should know."""
    config = _config(detectron2_config.read(source.bundle, source.options["config"]))
    try:
        network = build_model(config)
    except Exception as error:
        if lacks_memory(error):
            raise
        reason = f"The network that the configuration describes could not be built ({describe(error, 300)})."
        raise ArtifactRejected("invalid_config", reason) from error
    notes = _fill(network, _weights(source))
    return Detectron2Predictor(network.eval(), config, _labels(config, source.options)), notes


def _config(told: Mapping[str, Any]) -> Any:
    """detectron2's configuration with what the artifact says in the place of its defaults."""
    config = get_cfg()
    try:
        config.merge_from_other_cfg(CfgNode(dict(told)))
    except (KeyError, ValueError, AssertionError, TypeError) as error:
        raise detectron2_config.refused(describe(error, 300)) from error
    detectron2_config.refuse_what_leads_outside(config)  # again, since merging has read what stood in quotes
    if config.INPUT.FORMAT not in CHANNELS:
        raise detectron2_config.refused(f"INPUT.FORMAT is none of {', '.join(CHANNELS)}")
    config.MODEL.WEIGHTS, config.MODEL.DEVICE = "", "cuda" if torch.cuda.is_available() else "cpu"
    return config


def _weights(source: Source) -> dict[str, Any]:
    """What the file holds, as detectron2's checkpointer takes it."""
    with source.bundle.open(source.path) as file:
        head = file.read(len(TORCH_FILES[1]))
        file.seek(0)
        if head.startswith(TORCH_FILES):
            content = torch.load(file, map_location="cpu", weights_only=False)
        else:
            content = pickle.load(file, encoding="latin1")  # noqa: S301 (as the model zoo has them; a confined runner)
    if not isinstance(content, Mapping):
        raise ArtifactRejected("architecture_mismatch", "The file holds no weights by their names.")
    if "model" in content:
        kept = {name: content[name] for name in ("model", "__author__", "matching_heuristics") if name in content}
        return kept | {"model": dict(content["model"])}
    if head.startswith(TORCH_FILES):
        return {"model": dict(content)}
    blobs = {name: blob for name, blob in content.get("blobs", content).items() if not name.endswith("_momentum")}
    return {"model": blobs, "__author__": "Caffe2", "matching_heuristics": True}  # Detectron's, of before detectron2


def _fill(network: Any, weights: dict[str, Any]) -> list[str]:
    """Give the network all of its weights; sentences on those that it has no place for.

    Raises:
        ArtifactRejected: some are missing, or have another shape.
    """
    try:
        left = DetectionCheckpointer(network)._load_model(weights)
    except Exception as error:
        if lacks_memory(error):
            raise
        reason = f"The weights could not be taken ({describe(error, 300)})."
        raise ArtifactRejected("architecture_mismatch", reason) from error
    shapes = [str(name) for name, *_ in left.incorrect_shapes]
    missing = list(dict.fromkeys([*(name for name in left.missing_keys if name not in FILLED), *shapes]))
    if missing:
        names = ", ".join(plain(name, 80) for name in missing[:SHOWN])
        reason = f"The file lacks {len(missing)} weights of the configured network, or has them in another shape: "
        raise ArtifactRejected("architecture_mismatch", f"{reason}{names}.")
    unused = len(left.unexpected_keys)
    return [f"The file holds {unused} weights that the configured network has no place for."] if unused else []


def _labels(config: Any, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The declared labels, as many as there are classes; without any, numbered ones."""
    part = CLASS_COUNTS.get(str(config.MODEL.META_ARCHITECTURE))
    count = int(config.MODEL[part].NUM_CLASSES) if part in config.MODEL else 0
    declared = [str(label) for label in options.get("labels") or ()]
    if not declared:
        return tuple(f"class {number}" for number in range(count or 1))
    if count and len(declared) != count:
        reason = f"The metadata names {len(declared)} labels, and the configuration has {count} classes."
        raise ArtifactRejected("labels_mismatch", reason)
    return tuple(declared)


class Detectron2Predictor:
    """A network that looks at one page at a time, as detectron2's DefaultPredictor does."""

    is_batchable = False

    def __init__(self, network: Any, config: Any, labels: Sequence[str]) -> None:
        self._network, self.labels = network, tuple(labels)
        self.architecture = str(config.MODEL.META_ARCHITECTURE)
        self.has_masks = bool(config.MODEL.MASK_ON) and self.architecture in WITH_MASKS
        self._is_bgr = config.INPUT.FORMAT == "BGR"
        shortest = config.INPUT.MIN_SIZE_TEST
        self._resize = transforms.ResizeShortestEdge([shortest, shortest], config.INPUT.MAX_SIZE_TEST)

    def predict(self, batch: Batch, *, probabilities: bool) -> Prediction:
        """The detections on the one page of the batch."""
        image = page_of(batch, probabilities=probabilities)
        height, width = image.shape[:2]
        given = np.ascontiguousarray(image[:, :, ::-1] if self._is_bgr else image)
        small = self._resize.get_transform(given).apply_image(given)
        row = torch.as_tensor(np.ascontiguousarray(small.astype("float32").transpose(2, 0, 1)))
        with torch.no_grad():
            parts = [_arrays(part) for part in self._found([{"image": row, "height": height, "width": width}])]
        boxes, scores, labels, masks = (np.concatenate(column) for column in zip(*parts, strict=True))
        return detection.prediction_of(boxes, scores, labels, masks if self.has_masks else None)

    def _found(self, page: list[dict[str, Any]]) -> Iterator[Any]:
        """The instances on the page, in parts that fit into memory where they have masks as large as the page.

        Those of a network with masks are scaled here as its own forward does it for all of them at once.
        """
        if not self.has_masks:
            (answer,) = self._network(page)
            if "instances" not in answer:
                raise ValueError("the network tells no instances, so it is no detector")
            yield answer["instances"]
            return
        raw = self._network.inference(page, do_postprocess=False)
        (found,) = raw[0] if isinstance(raw, tuple) else raw  # beside what PanopticFPN says of the background
        for start in range(0, max(len(found), 1), TOGETHER):
            yield detector_postprocess(found[start : start + TOGETHER], page[0]["height"], page[0]["width"])


def _arrays(found: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, scores, labels and the outlines of masks, where there are any."""
    found = found.to("cpu")
    boxes = found.pred_boxes.tensor.numpy()
    if boxes.shape[1] != 4:
        raise ValueError("the network tells turned boxes, and only upright ones are served")
    masks = found.pred_masks.numpy() if found.has("pred_masks") else np.zeros((len(boxes), 0, 0), np.bool_)
    return boxes, found.scores.numpy(), found.pred_classes.numpy(), _outlines(masks)


def _outlines(masks: np.ndarray) -> np.ndarray:
    """(k, p, 2) corners of (k, h, w) masks, padded with NaN: down the left ends of their rows, and up the right ends.

    Of what a row leaves out between its ends nothing is seen; of a tall mask only some rows are followed.
    """
    made = np.full((len(masks), 2 * MOST_ROWS, 2), np.nan, np.float32)
    for place, mask in enumerate(masks):
        rows = np.flatnonzero(mask.any(axis=1))
        if len(rows) == 0:
            continue
        ends = np.append(rows, rows[-1] + 1)
        chosen = ends[np.unique(np.linspace(0, len(ends) - 1, min(len(ends), MOST_ROWS)).round().astype(int))]
        looked_at = mask[np.minimum(chosen, rows[-1])]
        left = looked_at.argmax(axis=1)
        right = mask.shape[1] - looked_at[:, ::-1].argmax(axis=1)
        corners = [*zip(left, chosen, strict=True), *zip(right[::-1], chosen[::-1], strict=True)]
        made[place, : len(corners)] = corners
    return made


RUNTIMES: Mapping[str, Runtime] = {"detectron2": Detectron2Model()}
