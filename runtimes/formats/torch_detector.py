"""The platform's own small detector in torch: one fully convolutional network, a state dict with a declared size.

The metadata says `"architecture": {"detector": {"width": 16, "longest_side": 384}}` and `labels`. As in FCOS (Tian et
al. 2019), each cell of a grid of eighths is sure of each label to some degree, and says how far the sides of its box
are; features of a quarter of that resolution, which see the whole page, are added to those that see its lines.

A cell in the middle of a paragraph cannot see where it ends, and learning to guess that takes long. So each cell says
only whether its box goes on into the next cell, for each of the four directions, and if not, how far its side is. A sum
along rows and columns makes distances of that: what is to be learned is near each cell, and every cell teaches it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from runtimes import detection
from runtimes.detection import Placement
from runtimes.errors import ArtifactRejected, plain
from runtimes.formats.detector import findings_of, found_on, page_of, proved
from runtimes.protocol import Findings, OnStage, Prediction, Source
from runtimes.signature import Batch

NAME = "detector"
STRIDE = 8
COARSEST = 32  # heights and widths of an input are multiples of it
WHITE = 255
UNSURE = -2.0  # the logit of each label, before anything is learned
LONG = 1.5  # the logit of a box's going on, alike
SIDES = 4  # left, top, right, bottom
TYPE_NAME = "FCOS-like page detector"


@dataclass(frozen=True)
class Size:
    """How large a detector is. width: of its channels. longest_side: of the pages that it looks at, in pixels."""

    width: int = 16
    longest_side: int = 384

    @classmethod
    def of(cls, architecture: object) -> Size:
        """The size that a version's metadata declares.

        Raises:
            ArtifactRejected: it declares none.
        """
        told = architecture.get(NAME) if isinstance(architecture, Mapping) else None
        if not isinstance(told, Mapping) or told.keys() - {"width", "longest_side"}:
            raise _invalid(f'it is {{"{NAME}": {{"width": 16, "longest_side": 384}}}}')
        width, side = told.get("width", cls.width), told.get("longest_side", cls.longest_side)
        if type(width) is not int or not 8 <= width <= 256 or width % 8:
            raise _invalid("width is a multiple of 8 up to 256")
        if type(side) is not int or not 64 <= side <= 2048 or side % COARSEST:
            raise _invalid(f"longest_side is a multiple of {COARSEST} from 64 to 2048")
        return cls(width, side)

    def to_json(self) -> dict[str, Any]:
        """The size as a version's metadata declares it."""
        return {NAME: {"width": self.width, "longest_side": self.longest_side}}


def is_declared(options: Mapping[str, Any]) -> bool:
    """Whether a file of weights is declared to be of such a detector."""
    architecture = options.get("architecture")
    return isinstance(architecture, Mapping) and NAME in architecture


def _block(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    """Two convolutions that change what they are given a little."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = _block(width, width, dilation=dilation)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return functional.relu(values + self.second(self.first(values)))


@dataclass(frozen=True)
class Seen:
    """What a network says of each cell of a grid of h/8 by w/8.

    scores: (n, labels, h/8, w/8) logits. goes_on: (n, 4, h/8, w/8) logits of whether the box goes on into the next cell
    to the left, above, to the right and below. sides: (n, 4, h/8, w/8) how far its sides are, in cells.
    """

    scores: torch.Tensor
    goes_on: torch.Tensor
    sides: torch.Tensor


class Network(nn.Module):
    """(n, 3, h, w) images from 0 to 1, h and w multiples of 32, to what is seen on them."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.start = nn.Sequential(_block(3, width // 2, stride=2), _block(width // 2, width, stride=2))
        self.eighth = nn.Sequential(_block(width, 2 * width, stride=2), _Residual(2 * width))
        self.sixteenth = nn.Sequential(_block(2 * width, 3 * width, stride=2), _Residual(3 * width))
        far = (_Residual(3 * width, dilation) for dilation in (1, 2, 4))
        self.coarse = nn.Sequential(_block(3 * width, 3 * width, stride=2), *far)
        self.from_coarse = nn.Conv2d(3 * width, 3 * width, 1)
        self.from_sixteenth = nn.Conv2d(3 * width, 2 * width, 1)
        self.joined = _Residual(2 * width)
        self.scores = nn.Sequential(_block(2 * width, 2 * width), nn.Conv2d(2 * width, labels, 1))
        self.sides = nn.Sequential(_block(2 * width, 2 * width), nn.Conv2d(2 * width, 2 * SIDES, 1))

    def begin(self) -> None:
        """Be unsure, see boxes of some cells, and change nothing in the residual parts: a start that learns fast."""
        for part in self.modules():
            if isinstance(part, _Residual):
                nn.init.zeros_(part.second[1].weight)  # type: ignore[arg-type]
        labels, sides = cast("Any", self.scores[-1]).bias, cast("Any", self.sides[-1]).bias
        nn.init.constant_(labels, UNSURE)
        nn.init.constant_(sides[:SIDES], LONG)
        nn.init.constant_(sides[SIDES:], 0.5)

    def forward(self, images: torch.Tensor) -> Seen:
        ink = 1 - images  # white is nothing, as is what lies beyond the page
        eighth = self.eighth(self.start(ink))
        sixteenth = self.sixteenth(eighth)
        coarse = self.from_coarse(self.coarse(sixteenth))
        sixteenth = functional.relu(sixteenth + functional.interpolate(coarse, scale_factor=2.0))
        seen = self.from_sixteenth(sixteenth)
        joined = self.joined(functional.relu(eighth + functional.interpolate(seen, scale_factor=2.0)))
        goes_on, ends = self.sides(joined).split(SIDES, dim=1)
        return Seen(self.scores(joined), goes_on, sides_from(goes_on.sigmoid(), ends))


def sides_from(goes_on: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """(n, 4, h, w) how far the sides are, in cells, by how likely each cell's box goes on, and where it ends if not."""
    found = []
    for side, (dim, is_forward) in enumerate(((2, False), (1, False), (2, True), (1, True))):
        cells = list(zip(goes_on[:, side].unbind(dim), ends[:, side].unbind(dim), strict=True))
        far, distances = torch.zeros_like(cells[0][1]), []
        for onward, end in reversed(cells) if is_forward else cells:
            far = torch.lerp(end, far + 1, onward)
            distances.append(far)
        found.append(torch.stack(distances[::-1] if is_forward else distances, dim))
    return torch.stack(found, dim=1)


def centres_of(height: int, width: int) -> torch.Tensor:
    """(h, w, 2) x and y of the cells' centres in pixels of the input."""
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (torch.stack([across, down], dim=-1) + 0.5) * STRIDE


def boxes_from(centres: torch.Tensor, sides: torch.Tensor) -> torch.Tensor:
    """(…, 4) corners in pixels from (…, 2) centres and (…, 4) distances in cells."""
    return torch.cat([centres - sides[..., :2] * STRIDE, centres + sides[..., 2:] * STRIDE], dim=-1)


def onto_input(image: np.ndarray, longest_side: int) -> tuple[torch.Tensor, Placement]:
    """A (h, w, 3) uint8 image as a (3, H, W) uint8 input, white where there is nothing, and how it was put there."""
    wanted = detection.within((image.shape[0], image.shape[1]), longest_side, COARSEST)
    place = detection.letterboxed((image.shape[0], image.shape[1]), wanted, is_centred=False)
    rows = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]  # a copy: torch takes nothing that is read-only
    # antialias: one line of small letters must grow pale, not vanish
    inner = functional.interpolate(rows, size=place.inner, mode="bilinear", antialias=True)[0]
    whole = torch.full((3, *wanted), WHITE, dtype=torch.uint8)
    whole[:, : place.inner[0], : place.inner[1]] = inner
    return whole, place


class TorchDetector:
    """A network that looks at one page at a time."""

    is_batchable = False

    def __init__(self, network: Network, size: Size, labels: Sequence[str]) -> None:
        self._network, self._size, self.labels = network.eval(), size, tuple(labels)

    def predict(self, batch: Batch, *, probabilities: bool) -> Prediction:
        """The detections on the one page of the batch."""
        image, place = onto_input(page_of(batch, probabilities=probabilities), self._size.longest_side)
        with torch.inference_mode():
            seen: Seen = self._network(image[None].float() / 255)
            table = seen.scores[0].sigmoid().permute(1, 2, 0)
            boxes = boxes_from(centres_of(*table.shape[:2]), seen.sides[0].permute(1, 2, 0)).reshape(-1, 4)
            best, labels = table.reshape(-1, len(self.labels)).max(dim=1)
        return found_on(place, boxes.numpy(), best.numpy(), labels.numpy(), classes=len(self.labels))


def load(source: Source) -> TorchDetector:
    """The detector in a file of weights.

    Raises:
        ArtifactRejected: the weights are not of the declared architecture.
    """
    size, labels = Size.of(source.options.get("architecture")), _labels(source.options)
    with source.bundle.open(source.path) as file:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        network = Network(size.width, len(labels))
    try:
        network.load_state_dict(weights, assign=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = f"The file holds no weights of the declared detector ({plain(error, 300)})."
        raise ArtifactRejected("architecture_mismatch", reason) from error
    return TorchDetector(network, size, labels)


def inspect(name: str, source: Source, on_stage: OnStage) -> Findings:
    """What the detector finds, proved on made-up pages."""
    on_stage("loading")
    started = time.monotonic()
    detector = load(source)
    on_stage("looking at a made-up page")
    proved(detector, detector.labels)
    return findings_of(name, TYPE_NAME, detector.labels, started)


def _labels(options: Mapping[str, Any]) -> list[str]:
    labels = options.get("labels")
    if not isinstance(labels, list) or not labels or len(set(map(str, labels))) != len(labels):
        raise _invalid("a detector's metadata has labels, a list of different names in the order of its numbers")
    return [str(label) for label in labels]


def _invalid(why: str) -> ArtifactRejected:
    return ArtifactRejected("invalid_architecture", f"The declared architecture cannot be used: {why}.")
