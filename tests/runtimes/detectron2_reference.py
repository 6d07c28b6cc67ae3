"""Makes detectron2 models and what its own DefaultPredictor finds with them; run by the interpreter of a library set.

Takes lines of JSON, `[FOLDER, NAME, STEPS, [SETTING, VALUE, ...]]`, and answers each with a line. Reads pages.npz
(images of one size, and rows of page, x0, y0, x1, y1, label) there; writes model.pth, config.yaml and found.npz,
what is found on the last page. NAME is a configuration of the model zoo; its network has random weights, trained for
STEPS steps on all pages but the last.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

CLASSES = 4


def configured(name: str, settings: list[str]):
    """The configuration, for a CPU and small enough for a test."""
    config = get_cfg()
    config.merge_from_file(model_zoo.get_config_file(name))
    config.MODEL.DEVICE = "cpu"
    for part in (config.MODEL.ROI_HEADS, config.MODEL.RETINANET):
        part.NUM_CLASSES = CLASSES
    config.MODEL.RETINANET.SCORE_THRESH_TEST = 0.001
    config.INPUT.MIN_SIZE_TEST, config.INPUT.MAX_SIZE_TEST = 320, 480
    config.TEST.DETECTIONS_PER_IMAGE = 37
    config.merge_from_list(settings)
    return config


def settle(network, image: np.ndarray) -> None:
    """Give frozen norms the statistics of a page: without, random weights of 50 layers tell nothing but infinities."""

    def look(norm, inputs) -> None:
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        norm.running_var.copy_(inputs[0].var((0, 2, 3)))

    norms = [part for part in network.modules() if isinstance(part, FrozenBatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    network.eval()
    with torch.no_grad():
        network([{"image": torch.from_numpy(image.transpose(2, 0, 1).copy())}])
    for hook in hooks:
        hook.remove()


def train(network, pages, steps: int, bgr: bool) -> None:
    """Some steps on a page at a time; a thing's mask is its box."""
    images, boxes = pages["images"][:-1], pages["boxes"]
    network.train()
    wanted = [one for one in network.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(wanted, lr=3e-4)
    with EventStorage():
        for step in range(steps):
            place = step % len(images)
            image = images[place][:, :, ::-1] if bgr else images[place]
            true = truth(boxes[boxes[:, 0] == place], image.shape[:2])
            losses = network([{"image": torch.from_numpy(image.transpose(2, 0, 1).copy()), "instances": true}])
            optimizer.zero_grad()
            sum(losses.values()).backward()
            torch.nn.utils.clip_grad_norm_(wanted, 5.0)
            optimizer.step()


def truth(rows: np.ndarray, size: tuple[int, int]):
    """What is on one page."""
    masks = np.zeros((len(rows), *size), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, rows[:, 1:5].round().astype(int), strict=True):
        mask[y0:y1, x0:x1] = True
    true = Instances(size)
    true.gt_boxes = Boxes(torch.tensor(rows[:, 1:5], dtype=torch.float32))
    true.gt_classes = torch.tensor(rows[:, 5], dtype=torch.int64)
    true.gt_masks = BitMasks(torch.from_numpy(masks))
    return true


def main(folder: Path, name: str, steps: int, settings: list[str]) -> None:
    """Make the artifact, and find things on the last page with it."""
    torch.manual_seed(3)
    torch.set_num_threads(1)  # sums have the order that they have in a runner
    pages = np.load(folder / "pages.npz")
    config = configured(name, settings)
    network = build_model(config)
    settle(network, pages["images"][0])
    if steps:
        train(network, pages, steps, bgr=config.INPUT.FORMAT == "BGR")
    torch.save({"model": network.state_dict(), "iteration": steps}, folder / "model.pth")
    (folder / "config.yaml").write_text(config.dump())
    config.MODEL.WEIGHTS = str(folder / "model.pth")
    page = pages["images"][-1]
    found = DefaultPredictor(config)(page[:, :, ::-1])["instances"].to("cpu")  # it takes BGR, as OpenCV reads images
    masks = {"masks": found.pred_masks.numpy()} if found.has("pred_masks") else {}
    np.savez_compressed(
        folder / "found.npz",
        boxes=found.pred_boxes.tensor.numpy(),
        scores=found.scores.numpy(),
        labels=found.pred_classes.numpy(),
        **masks,
    )


if __name__ == "__main__":
    for line in sys.stdin:
        folder, *job = json.loads(line)
        main(Path(folder), *job)
        sys.stdout.write("made\n")
        sys.stdout.flush()
