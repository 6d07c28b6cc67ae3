"""Where the folder in DETECTRON2_SETS holds a library set with detectron2: its models are inspected and served in
confined runners, and what they find is compared with what detectron2's own DefaultPredictor finds.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clients.demo import pages as made
from runtimes import detection
from runtimes.client import HostClient, Inspection, LoadRequest
from runtimes.limits import GIB, MIB, Limits
from tests.runtimes import attacks, hosts
from tests.runtimes.bundles import inspected, rejection
from tests.runtimes.carriers import CARRIERS
from tests.runtimes.conftest import bundle_of
from tests.runtimes.payloads import SUCCEEDED
from tests.runtimes.world import World, rejected

SETS = os.environ.get("DETECTRON2_SETS", "")
pytestmark = pytest.mark.skipif(
    not SETS, reason="needs a folder in DETECTRON2_SETS with a library set named detectron2 (docs/library-sets.md)"
)
LABELS = list(made.LABELS)
DPI = 36
FASTER = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
FASTER_C4 = "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml"
RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
CASCADE = "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml"
PANOPTIC = "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"
TURNED = ("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator", "MODEL.PROPOSAL_GENERATOR.NAME", "RRPN",
          "MODEL.RPN.BBOX_REG_WEIGHTS", "(1.0,1.0,1.0,1.0,1.0)", "MODEL.ROI_HEADS.NAME", "RROIHeads",
          "MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated",
          "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", "(10.0,10.0,5.0,5.0,1.0)")  # fmt: skip
SMALL = ("MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.RESNETS.NORM", "BN",
         "MODEL.BACKBONE.FREEZE_AT", "0", "INPUT.FORMAT", "RGB")  # fmt: skip
PATIENCE_S = 120.0
ROOMY = Limits(memory_bytes=4 * GIB, call_seconds=PATIENCE_S)
LIMITS = Limits(memory_bytes=GIB, load_seconds=30.0, cpu_seconds=30)


@pytest.fixture(scope="module")
def client() -> Iterator[HostClient]:
    """A client of a host that has the set."""
    with (
        tempfile.TemporaryDirectory(prefix="tnt") as name,
        hosts.ended(hosts.start(Path(name), "--library-sets", SETS)) as client,
    ):
        yield client


@dataclass(frozen=True)
class Referred:
    """The files of a model, and what detectron2 itself finds on a page with them."""

    files: dict[str, bytes]
    page: np.ndarray
    found: Mapping[str, np.ndarray]

    def with_config(self, change: Callable[[str], str]) -> dict[str, bytes]:
        """The files with another configuration."""
        return {**self.files, "config.yaml": change(self.files["config.yaml"].decode()).encode()}


Refer = Callable[..., Referred]


@pytest.fixture(scope="module")
def refer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refer]:
    """Makes a model of a configuration of detectron2's zoo, each once."""
    images, boxes = pages(9)
    known: dict[tuple[Any, ...], Referred] = {}

    def refer(name: str, steps: int = 0, *settings: str) -> Referred:
        if (name, steps, *settings) not in known:
            folder = tmp_path_factory.mktemp("model")
            np.savez(folder / "pages.npz", images=images, boxes=boxes)
            _make(maker, folder, name, steps, settings)
            files = {name: (folder / name).read_bytes() for name in ("model.pth", "config.yaml")}
            known[name, steps, *settings] = Referred(files, images[-1], dict(np.load(folder / "found.npz")))
        return known[name, steps, *settings]

    home = tmp_path_factory.mktemp("home")
    script = Path(__file__).with_name("detectron2_reference.py")
    command = [str(Path(SETS, "detectron2", "venv", "bin", "python")), str(script)]
    pipe = subprocess.PIPE
    with (
        (home / "errors").open("w") as errors,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env={"HOME": str(home)}) as maker,
    ):
        yield refer


def _make(maker: subprocess.Popen[str], folder: Path, *job: object) -> None:
    assert maker.stdin is not None
    assert maker.stdout is not None
    maker.stdin.write(json.dumps([str(folder), *job]) + "\n")
    maker.stdin.flush()
    assert maker.stdout.readline() == "made\n", "detectron2 failed; what it printed lies in the folder home"


def pages(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of made-up pages, and the number, the box and the label of each of their parts."""
    pdf, layouts = made.make_pages(count, seed=4)
    with zipfile.ZipFile(io.BytesIO(made.coco_zip(pdf, layouts, DPI))) as archive:
        names = [f"images/{number + 1:04}.png" for number in range(count)]
        images = np.stack([np.asarray(Image.open(archive.open(name)).convert("RGB")) for name in names])
    scale = DPI / 72
    rows = [
        (number, *(scale * value for value in part.box), LABELS.index(part.label))
        for number, layout in enumerate(layouts)
        for part in layout
    ]
    return images, np.array(rows)


@pytest.mark.parametrize(
    ("name", "steps", "settings"),
    [
        (FASTER, 0, ()),
        (FASTER_C4, 0, ("MODEL.RPN.POST_NMS_TOPK_TEST", "100")),  # of the zoo's 1,000, each takes some megabytes
        (RETINANET, 0, ()),
        (MASK, 0, ()),
        (CASCADE, 0, ("MODEL.MASK_ON", "False")),  # untrained, its masks are noise, which no outline follows
        (PANOPTIC, 0, ()),
        (FASTER, 0, ("INPUT.MIN_SIZE_TEST", "0", "INPUT.FORMAT", "RGB")),
        (FASTER, 12, SMALL),
        (MASK, 12, SMALL),
    ],
    ids=["faster", "C4", "RetinaNet", "mask", "cascade", "panoptic", "RGB as it is", "trained faster", "trained mask"],
)
def test_boxes_are_those_of_detectron2s_own_predictor(
    client: HostClient, refer: Refer, name: str, steps: int, settings: tuple[str, ...]
) -> None:
    reference = refer(name, steps, *settings)
    has_masks = "masks" in reference.found

    found = inspected(client, reference.files, limits=ROOMY, labels=LABELS)
    outputs = answered(client, reference.files, reference.page, found)

    assert (found.task, found.format) == ("detection", "detectron2")
    assert found.signature == detection.signature_of(LABELS, has_polygons=has_masks)
    assert len(reference.found["scores"]) > 0
    order = np.argsort(-reference.found["scores"], kind="stable")
    np.testing.assert_allclose(outputs["scores"][0], reference.found["scores"][order], atol=1e-5)
    np.testing.assert_allclose(outputs["boxes"][0], reference.found["boxes"][order], atol=1e-2)
    assert outputs["labels"][0].tolist() == reference.found["labels"][order].tolist()
    if has_masks:
        masks = reference.found["masks"][order]
        outlines = zip(outputs["polygons"][0], masks, strict=True)
        shared = [overlap(filled(corners, mask.shape), mask) for corners, mask in outlines]
        assert min(shared) > 0.9, shared


def answered(
    client: HostClient, files: Mapping[str, bytes], page: np.ndarray, found: Inspection
) -> dict[str, np.ndarray]:
    """What a runner that loaded the files finds on the page, however busy the machine is."""
    key = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
    declared = {"signature": found.signature.to_json(), "labels": LABELS}
    runner = client.runner(key, lambda: LoadRequest(bundle_of(files), "acme", found.format, declared, ROOMY))
    return runner.predict(page[None], deadline_s=PATIENCE_S).outputs


def filled(corners: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which pixels have their middle inside the polygon: the ways from there to the right cross it an odd number of
    times."""
    corners = corners[np.isfinite(corners).all(axis=1)]
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 != y1:
            inside ^= ((y0 <= y) != (y1 <= y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def overlap(polygon: np.ndarray, mask: np.ndarray) -> float:
    """Intersection over union of a polygon and the mask, from the left end to the right end of each of its rows."""
    ends = np.logical_or.accumulate(mask, axis=1) & np.logical_or.accumulate(mask[:, ::-1], axis=1)[:, ::-1]
    return float((polygon & ends).sum() / max((polygon | ends).sum(), 1))


@pytest.mark.parametrize("weights", ["https://dl.example/model_final.pkl", "/etc/passwd", "detectron2://x/y.pkl"])
def test_weights_that_a_configuration_names_are_not_looked_for(client: HostClient, refer: Refer, weights: str) -> None:
    reference = refer(FASTER)
    files = reference.with_config(lambda text: re.sub(r"\n  WEIGHTS: .*", f"\n  WEIGHTS: {weights}", text))

    found = inspected(client, files, labels=LABELS)
    outputs = answered(client, files, reference.page, found)

    assert weights.encode() in files["config.yaml"]
    assert outputs["boxes"].shape[1] == len(reference.found["boxes"])
    assert outputs["scores"][0].max() == pytest.approx(reference.found["scores"].max(), abs=1e-5)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("_BASE_: ../Base-RCNN-FPN.yaml", "write it out whole with cfg.dump()"),
        ("INPUT: {FORMAT: '\"/etc/passwd\"'}", "nothing outside the upload is read"),
        ("INPUT: {FORMAT: L}", "none of RGB, BGR"),
        ("NOT_OF_DETECTRON2: 1", "Non-existent config key: NOT_OF_DETECTRON2"),
        ("INPUT: !!python/object/apply:os.system [id]", "only plain values are read"),
        ("INPUT: {MIN_SIZE_TEST: large}", "Type mismatch"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(client: HostClient, refer: Refer, line: str, told: str) -> None:
    name = line.partition(":")[0]
    cut = re.compile(rf"^{name}:.*\n(?:^[ -].*\n)*", re.MULTILINE)

    refusal = rejection(client, refer(FASTER).with_config(lambda text: f"{cut.sub('', text)}{line}\n"), labels=LABELS)

    assert refusal.code in ("invalid_config", "unreadable_artifact")
    assert told in refusal.reason


def test_weights_of_another_network_are_refused(client: HostClient, refer: Refer) -> None:
    reference = refer(FASTER)
    told = rejection(client, reference.with_config(lambda text: text.replace("NUM_CLASSES: 4", "NUM_CLASSES: 9")))
    assert told.code == "architecture_mismatch"
    assert "roi_heads.box_predictor" in told.reason
    assert rejection(client, reference.files, labels=["one"]).code == "labels_mismatch"


def test_a_network_that_tells_turned_boxes_is_refused(client: HostClient, refer: Refer) -> None:
    told = rejection(client, refer(FASTER, 0, *TURNED).files, labels=LABELS)
    assert told.code == "detection_mismatch"
    assert "turned boxes" in told.reason


def test_a_network_that_is_larger_than_its_budget_is_refused(client: HostClient, refer: Refer) -> None:
    files = refer(FASTER).with_config(lambda text: text.replace("FC_DIM: 1024", "FC_DIM: 1073741824"))
    told = rejection(client, files, labels=LABELS)
    assert told.code in ("load_memory", "load_crashed"), told.reason
    assert inspected(client, refer(FASTER).files, labels=LABELS).memory_bytes < 800 * MIB


DEEDS = {
    "read a secret": attacks.FILES["read a secret"],
    "append to a file": attacks.FILES["append to a file"],
    "write to the bundle": attacks.FILES["write to the bundle"],
    "connect by TCP": attacks.SOCKETS["connect by TCP"],
    "run a command": attacks.PROCESSES["run a command"],
    "fork and stay": attacks.PROCESSES["fork and stay"],
    "kill the victim": attacks.PROCESSES["kill the victim"],
    "take memory until there is none": attacks.EXHAUSTION["take memory until there is none"],
}
WEIGHT_FILES = ("torch", "older torch", "pickle of protocol 2")


@pytest.mark.parametrize("carrier", WEIGHT_FILES)
def test_weights_do_run_their_code(client: HostClient, world: World, refer: Refer, carrier: str) -> None:
    """Otherwise the test below would prove nothing."""
    files = CARRIERS[carrier]("result = 'it ran'") | {"config.yaml": refer(FASTER).files["config.yaml"]}
    assert f"{SUCCEEDED}: it ran" in rejected(client, world, files, limits=LIMITS).reason


@pytest.mark.parametrize("deed", DEEDS)
def test_no_weights_bring_a_deed_about(client: HostClient, world: World, refer: Refer, deed: str) -> None:
    for carrier in WEIGHT_FILES:
        code = DEEDS[deed].format(**world.targets(client))
        files = CARRIERS[carrier](code) | {"config.yaml": refer(FASTER).files["config.yaml"]}

        rejection = rejected(client, world, files, limits=LIMITS)

        world.assert_untouched()
        assert SUCCEEDED not in rejection.reason
