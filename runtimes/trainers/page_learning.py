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

from runtimes.formats.torch_detector import STRIDE, WHITE, Network, Seen, boxes_from, centres_of
from runtimes.trainers.page_detector import PageDetectorParams

SHIFT = 4  # cells by which a page is moved about, at most
WARM_UP = 0.1  # of the time
WEIGHT_DECAY = 0.02
MOST_GRADIENT = 10.0
LEAST_RATE = 0.02  # of the longest step, at the end
LEAST_SURE = 0.1  # how sure a cell should be of its label, however wrong its box is
BALANCE = 0.5  # 0: a box counts by its cells; 1: all boxes count alike
OVERLAP_WEIGHT = 2.0  # against the entropy


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
    optimizer = torch.optim.AdamW(_by_decay(network), lr=params.learning_rate)
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


def _by_decay(network: nn.Module) -> list[dict[str, Any]]:
    """The network's parameters for an optimizer: what scales and shifts is not drawn to zero."""
    weights = [each for each in network.parameters() if each.ndim > 1]
    others = [each for each in network.parameters() if each.ndim <= 1]
    return [{"params": weights, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]


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
    loss = _loss(network(images.to(memory_format=torch.channels_last)), batch)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), MOST_GRADIENT)
    optimizer.step()
    return float(loss.detach())


def _loss(seen: Seen, batch: Sequence[Page]) -> torch.Tensor:
    """What is wrong with all labels, and with the sides of the cells that are in boxes, by the weight of those."""
    wanted, weights = torch.zeros_like(seen.scores), torch.zeros_like(seen.scores[:, :1])
    wrong, total = [], 0.0
    for place, page in enumerate(batch):
        owners = _owners(centres_of(*seen.scores.shape[2:]), page.boxes)
        weights[place, 0] = _weights(owners)
        rows, columns = (owners >= 0).nonzero(as_tuple=True)
        own, weight = owners[rows, columns], weights[place, 0, rows, columns]
        overlap, sides_wrong = _sides_wrong(seen, (place, rows, columns), page.boxes[own])
        # a cell should be as sure as its box is right: then the best of several boxes is the surest
        wanted[place, page.labels[own], rows, columns] = overlap.clamp(min=LEAST_SURE)
        wrong.append(sides_wrong * weight)
        total += float(weight.sum())
    return ((_focal(seen.scores, wanted) * weights).sum() + torch.cat(wrong).sum()) / max(1.0, total)


def _sides_wrong(
    seen: Seen, cells: tuple[int, torch.Tensor, torch.Tensor], boxes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each of (k,) cells of a page: how much its box overlaps the (k, 4) true one, and how wrong its sides are.

    One less the generalised overlap teaches whole sums of a row; the entropy of whether a box goes on, each cell alone.
    """
    place, rows, columns = cells
    centres = centres_of(*seen.scores.shape[2:])[rows, columns]
    overlap, generalised = _overlaps(boxes_from(centres, seen.sides[place, :, rows, columns].T), boxes)
    goes_on = torch.cat([centres - boxes[:, :2], boxes[:, 2:] - centres], dim=1) > STRIDE
    told = seen.goes_on[place, :, rows, columns].T
    doubt = functional.binary_cross_entropy_with_logits(told, goes_on.float(), reduction="none").sum(dim=1)
    return overlap.detach(), OVERLAP_WEIGHT * (1 - generalised) + doubt


def _owners(centres: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """(h, w): the box that a cell's centre is in, or -1. Of several the smallest.

    A box that is thinner than a cell is taken to be as wide as one: a line of text has a row of cells.
    """
    if not len(boxes):
        return torch.full(centres.shape[:2], -1)
    middles, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    reach = halves.clamp(min=STRIDE / 2)
    first, last = (middles - reach)[:, None, None], (middles + reach)[:, None, None]
    is_inside = (centres >= first).all(dim=-1) & (centres < last).all(dim=-1)
    least, owners = torch.where(is_inside, halves.prod(dim=1)[:, None, None], torch.inf).min(dim=0)
    return torch.where(least.isinf(), -1, owners)


def _weights(owners: torch.Tensor) -> torch.Tensor:
    """(h, w): how much each cell counts, the less the more cells its box has; what is in no box is one more box."""
    return torch.bincount(owners.flatten() + 1).float()[owners + 1] ** -BALANCE


def _overlaps(found: torch.Tensor, true: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The overlap of each pair of boxes, and the generalised one (Rezatofighi et al. 2019)."""
    corners = torch.maximum(found[:, :2], true[:, :2]), torch.minimum(found[:, 2:], true[:, 2:])
    outside = torch.minimum(found[:, :2], true[:, :2]), torch.maximum(found[:, 2:], true[:, 2:])
    shared, hull = _areas(*corners), _areas(*outside)
    whole = (_areas(found[:, :2], found[:, 2:]) + _areas(true[:, :2], true[:, 2:]) - shared).clamp(min=1e-6)
    overlap = shared / whole
    return overlap, overlap - (hull - whole) / hull.clamp(min=1e-6)


def _areas(first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    return (last - first).clamp(min=0).prod(dim=1)


def _focal(scores: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """(n, labels, h, w) quality focal loss (Li et al. 2020): cells that are right already count little."""
    away = (scores.sigmoid() - wanted).abs().detach() ** 2
    return functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none") * away
