"""How a page detector learns: what each cell should say, how far it is from that, and the steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from runtimes.formats.torch_detector import STRIDE, WHITE, Network, boxes_from, centres_of
from runtimes.trainers.page_detector import PageDetectorParams

REACH = 1.5  # cells round a box's centre that stand for it
SHIFT = 4  # cells by which a page is moved about, at most
WARM_UP = 0.1  # of the time
WEIGHT_DECAY = 0.02
MOST_GRADIENT = 10.0
LEAST_RATE = 0.02  # of the longest step, at the end


@dataclass(frozen=True)
class Page:
    """A page as the network sees it: (3, h, w) uint8; its true boxes, (k, 4) corners in its pixels; (k,) labels."""

    image: torch.Tensor
    boxes: torch.Tensor
    labels: torch.Tensor


def learn(
    pages: Sequence[Page], labels: int, params: PageDetectorParams, watch: Callable[[float, dict[str, float]], None]
) -> Network:
    """The network after its last epoch, or when the time is up; its steps have grown short by then.

    watch: hears after each epoch how much is done, from 0 to 1, and the mean loss.
    """
    torch.manual_seed(params.seed)
    network: Any = Network(params.width, labels)
    network.to(memory_format=torch.channels_last).begin()
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=params.learning_rate, weight_decay=WEIGHT_DECAY)
    chance = torch.Generator().manual_seed(params.seed)
    clock = _Clock(params, math.ceil(len(pages) / params.batch_size))
    while clock.done < 1:
        losses = []
        for batch in _batches(pages, params.batch_size, chance):
            for group in optimizer.param_groups:
                group["lr"] = params.learning_rate * _rate(clock.done)
            losses.append(_step(network, batch, optimizer))
            if clock.tick() >= 1:
                break
        watch(clock.done, {"train_loss": sum(losses) / len(losses)})
    found: Network = network.to(memory_format=torch.contiguous_format).eval()
    return found


class _Clock:
    """How much of a fit is done: by its steps, or by its time where that runs out first."""

    def __init__(self, params: PageDetectorParams, steps_of_an_epoch: int) -> None:
        self._steps, self._seconds = params.epochs * steps_of_an_epoch, params.most_seconds
        self._started, self._step = time.monotonic(), 0
        self.done = 0.0

    def tick(self) -> float:
        """One step further."""
        self._step += 1
        by_time = (time.monotonic() - self._started) / self._seconds
        self.done = min(1.0, max(self._step / self._steps, by_time))
        return self.done


def _rate(done: float) -> float:
    """How long a step is: growing at first, then a half wave of a cosine down."""
    if done < WARM_UP:
        return max(LEAST_RATE, done / WARM_UP)
    return LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


def _batches(pages: Sequence[Page], size: int, chance: torch.Generator) -> Iterator[list[Page]]:
    order = torch.randperm(len(pages), generator=chance).tolist()
    for start in range(0, len(order), size):
        yield [_changed(pages[place], chance) for place in order[start : start + size]]


def _changed(page: Page, chance: torch.Generator) -> Page:
    """The page moved about, mirrored or paler by chance, so that the network learns pages and not these pages."""
    image, boxes = page.image, page.boxes
    down, across, mirror, pale = torch.rand(4, generator=chance).tolist()
    if mirror < 0.5 and len(boxes):
        image = image.flip(2)
        boxes = torch.stack(
            [image.shape[2] - boxes[:, 2], boxes[:, 1], image.shape[2] - boxes[:, 0], boxes[:, 3]], dim=1
        )
    top, left = int(down * SHIFT * STRIDE), int(across * SHIFT * STRIDE)
    moved = torch.full_like(image, WHITE)
    moved[:, top:, left:] = image[:, : image.shape[1] - top, : image.shape[2] - left]
    shift = torch.tensor([left, top, left, top], dtype=boxes.dtype)
    limit = torch.tensor([image.shape[2], image.shape[1]] * 2, dtype=boxes.dtype)
    boxes = torch.minimum(boxes + shift, limit)
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 2).all(dim=1)
    paler = (moved.float() * (0.8 + 0.2 * pale) + 255 * (0.2 - 0.2 * pale)).to(torch.uint8)
    return Page(paler, boxes[kept], page.labels[kept])


def _step(network: Network, batch: Sequence[Page], optimizer: Any) -> float:
    height, width = (max(page.image.shape[side] for page in batch) for side in (1, 2))
    images = torch.full((len(batch), 3, height, width), 1.0)
    for place, page in enumerate(batch):
        images[place, :, : page.image.shape[1], : page.image.shape[2]] = page.image.float() / 255
    optimizer.zero_grad(set_to_none=True)
    scores, sides = network(images.to(memory_format=torch.channels_last))
    loss = _loss(scores, sides, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), MOST_GRADIENT)
    optimizer.step()
    return float(loss.detach())


def _loss(scores: torch.Tensor, sides: torch.Tensor, batch: Sequence[Page]) -> torch.Tensor:
    """Focal loss of the labels, and one less the generalised overlap of the boxes, per cell that stands for a box."""
    centres = centres_of(*scores.shape[2:])
    wanted = torch.zeros_like(scores)
    apart: list[torch.Tensor] = []
    for place, page in enumerate(batch):
        owners = _owners(centres, page.boxes)
        rows, columns = (owners >= 0).nonzero(as_tuple=True)
        own = owners[rows, columns]
        found = boxes_from(centres[rows, columns], sides[place, :, rows, columns].T)
        shared, generalised = _overlaps(found, page.boxes[own])
        apart.append(1 - generalised)
        # a cell should be as sure as its box is right: then the best of several boxes is the surest
        wanted[place, page.labels[own], rows, columns] = shared.detach().clamp(min=0.1)
    count = max(1, sum(map(len, apart)))
    return (_focal(scores, wanted) + 2 * torch.cat(apart).sum()) / count


def _owners(centres: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """(h, w): which box a cell stands for, or -1. Of several the smallest; every box has a cell."""
    owners = torch.full(centres.shape[:2], -1, dtype=torch.long)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    for place in areas.argsort(descending=True).tolist():
        box = boxes[place]
        middle = (box[:2] + box[2:]) / 2
        is_near = ((centres - middle).abs() <= REACH * STRIDE).all(dim=-1)
        is_inside = (centres > box[:2]).all(dim=-1) & (centres < box[2:]).all(dim=-1)
        owners[is_near & is_inside] = place
        column, row = (middle / STRIDE).long().tolist()
        owners[min(max(row, 0), owners.shape[0] - 1), min(max(column, 0), owners.shape[1] - 1)] = place
    return owners


def _overlaps(found: torch.Tensor, true: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The overlap of each pair of boxes, and the generalised one (Rezatofighi et al. 2019)."""
    sides = (torch.minimum(found[:, 2:], true[:, 2:]) - torch.maximum(found[:, :2], true[:, :2])).clamp(min=0)
    shared = sides.prod(dim=1)
    areas = (found[:, 2:] - found[:, :2]).prod(dim=1) + (true[:, 2:] - true[:, :2]).prod(dim=1)
    whole = (areas - shared).clamp(min=1e-6)
    hull = (torch.maximum(found[:, 2:], true[:, 2:]) - torch.minimum(found[:, :2], true[:, :2])).prod(dim=1)
    overlap = shared / whole
    return overlap, overlap - (hull - whole) / hull.clamp(min=1e-6)


def _focal(scores: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Quality focal loss (Li et al. 2020): cells that are right already count little."""
    away = (scores.sigmoid() - wanted).abs().detach() ** 2
    return (functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none") * away).sum()
