"""Makes a detectron2 model and what its own DefaultPredictor finds with it; run by the interpreter of a library set.

    python detectron2_reference.py FOLDER NAME STEPS

Reads FOLDER/page.npy; writes model.pth, config.yaml and found.npz. NAME is a configuration of the model zoo; its
network has random weights, trained for STEPS steps on black rectangles.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances

CLASSES = 4
SIDE = 256


def configured(name: str):
    """The configuration, small enough for a test."""
    config = get_cfg()
    config.merge_from_file(model_zoo.get_config_file(name))
    config.MODEL.DEVICE = "cpu"
    config.MODEL.ROI_HEADS.NUM_CLASSES = CLASSES
    config.MODEL.RETINANET.NUM_CLASSES = CLASSES
    config.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.05
    config.INPUT.MIN_SIZE_TEST, config.INPUT.MAX_SIZE_TEST = 320, 480
    config.TEST.DETECTIONS_PER_IMAGE = 37
    return config


def train(network, steps: int) -> None:
    """Some steps on images with one rectangle each, whose label is the quarter that it lies in."""
    chance = np.random.default_rng(0)
    network.train()
    optimizer = torch.optim.SGD([one for one in network.parameters() if one.requires_grad], lr=0.002, momentum=0.9)
    for _ in range(steps):
        x, y = chance.integers(8, SIDE - 100, 2)
        image = np.full((3, SIDE, SIDE), 255, np.uint8)
        image[:, y : y + 80, x : x + 60] = 0
        true = Instances((SIDE, SIDE))
        true.gt_boxes = Boxes(torch.tensor([[x, y, x + 60, y + 80]], dtype=torch.float32))
        true.gt_classes = torch.tensor([int(x > SIDE / 2) + 2 * int(y > SIDE / 2)])
        true.gt_masks = BitMasks(torch.from_numpy(image[:1] == 0))
        losses = network([{"image": torch.from_numpy(image), "instances": true}])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()


def main(folder: Path, name: str, steps: int) -> None:
    """Make the artifact, and find things on the page with it."""
    torch.manual_seed(3)
    config = configured(name)
    network = build_model(config)
    if steps:
        train(network, steps)
    torch.save({"model": network.state_dict(), "iteration": steps}, folder / "model.pth")
    (folder / "config.yaml").write_text(config.dump())
    config.MODEL.WEIGHTS = str(folder / "model.pth")
    page = np.load(folder / "page.npy")
    found = DefaultPredictor(config)(page[:, :, ::-1])["instances"].to("cpu")  # it takes BGR, as OpenCV reads images
    masks = {"masks": found.pred_masks.numpy()} if found.has("pred_masks") else {}
    np.savez(
        folder / "found.npz",
        boxes=found.pred_boxes.tensor.numpy(),
        scores=found.scores.numpy(),
        labels=found.pred_classes.numpy(),
        **masks,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
