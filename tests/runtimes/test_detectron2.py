"""detectron2's configuration: what of it is taken, and what an uploader without such a library set is told. Where the
folder in DETECTRON2_SETS holds a library set with detectron2, its models are compared with its own DefaultPredictor.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes import detection
from runtimes.bundle import Bundle
from runtimes.client import HostClient
from runtimes.errors import ArtifactRejected
from runtimes.formats import detectron2_config
from tests.runtimes import hosts
from tests.runtimes.bundles import inspected, rejection, served
from tests.runtimes.conftest import bundle_of
from tests.runtimes.test_folders import zipped

CONFIG = """
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  WEIGHTS: https://dl.example/model_final.pkl
  DEVICE: cuda
  ROI_HEADS: {NUM_CLASSES: 5}
DATASETS: {TRAIN: [/data/train]}
OUTPUT_DIR: ./output
INPUT: {FORMAT: BGR}
VERSION: 2
"""


def read(text: str) -> dict[str, object]:
    return detectron2_config.read(Bundle(bundle_of({"config.yaml": text.encode()})), "config.yaml")


def test_weights_come_from_the_artifact_alone() -> None:
    config = read(CONFIG)

    model = config["MODEL"]
    assert isinstance(model, dict)
    assert (model["WEIGHTS"], model["DEVICE"], model["ROI_HEADS"]) == ("", "cpu", {"NUM_CLASSES": 5})
    assert config.keys() == {"MODEL", "INPUT", "VERSION"}


@pytest.mark.parametrize(
    "line",
    [
        "INPUT: {FORMAT: /etc/passwd}",
        "INPUT: {FORMAT: [~/x]}",
        "INPUT: {FORMAT: ../x}",
        "INPUT: {FORMAT: 'detectron2://COCO/x.pkl'}",
        "INPUT: {FORMAT: '${HOME}'}",
        "_BASE_: ../Base-RCNN.yaml",
        "MODEL: {ANYTHING: 1}",
        "MODEL: 7",
        "{",
    ],
)
def test_a_configuration_that_leads_outside_is_refused(line: str) -> None:
    name = line.partition(":")[0]
    kept = "\n".join(one for one in CONFIG.splitlines() if not one.startswith(name))
    with pytest.raises(ArtifactRejected) as rejected:
        read(f"{kept}\n{line}\n" if name != "MODEL" else f"{line}\n")

    assert rejected.value.code in ("invalid_config", "unreadable_artifact")


def test_how_many_things_are_found_is_taken_from_how_it_was_tested() -> None:
    assert read(f"{CONFIG}TEST: {{DETECTIONS_PER_IMAGE: 7, EXPECTED_RESULTS: [x]}}\n")["TEST"] == {
        "DETECTIONS_PER_IMAGE": 7
    }
    assert "TEST" not in read(f"{CONFIG}TEST: {{DETECTIONS_PER_IMAGE: all}}\n")


def test_without_its_library_set_an_uploader_is_told_what_is_missing(client: HostClient) -> None:
    fd = bundle_of({"model.pth": zipped({"x/data.pkl": b""}), "config.yaml": CONFIG.encode()})
    try:
        with pytest.raises(ArtifactRejected) as rejected:
            client.inspect(fd, tenant="acme", metadata={})
    finally:
        os.close(fd)

    assert rejected.value.code == "library_set_needed"
    assert "named 'detectron2'" in rejected.value.reason


SETS = os.environ.get("DETECTRON2_SETS", "")
needs_detectron2 = pytest.mark.skipif(
    not SETS, reason="needs a folder in DETECTRON2_SETS with a library set named detectron2 (docs/library-sets.md)"
)
LABELS = ["title", "text", "table", "figure"]
FASTER = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"


@pytest.fixture(scope="module")
def detectron2_client() -> Iterator[HostClient]:
    with (
        tempfile.TemporaryDirectory(prefix="tnt") as name,
        hosts.ended(hosts.start(Path(name), "--library-sets", SETS)) as client,
    ):
        yield client


def referred(folder: Path, name: str, steps: int) -> tuple[dict[str, bytes], Any]:
    """The files of a model, and what detectron2 itself finds on the page with them."""
    script = Path(__file__).with_name("detectron2_reference.py")
    python = Path(SETS, "detectron2", "venv", "bin", "python")
    command = [str(part) for part in (python, script, folder, name, steps)]
    subprocess.run(command, check=True, capture_output=True, timeout=600, env={"HOME": str(folder), "PATH": ""})
    files = {name: (folder / name).read_bytes() for name in ("model.pth", "config.yaml")}
    return files, np.load(folder / "found.npz")


def page_with_black_boxes() -> np.ndarray:
    page = np.full((330, 255, 3), 255, np.uint8)
    page[40:120, 30:90] = 0
    page[200:280, 150:210] = (30, 60, 200)
    return page


@needs_detectron2
@pytest.mark.parametrize(
    ("name", "steps"), [(FASTER, 0), (MASK, 0), (MASK, 25)], ids=["faster random", "mask random", "mask trained"]
)
def test_boxes_are_those_of_detectron2s_own_predictor(
    detectron2_client: HostClient, tmp_path: Path, name: str, steps: int
) -> None:
    page = page_with_black_boxes()
    np.save(tmp_path / "page.npy", page)
    files, reference = referred(tmp_path, name, steps)

    found = inspected(detectron2_client, files, labels=LABELS)
    config: dict[str, Any] = {"config": "config.yaml", "labels": LABELS}
    outputs = served(detectron2_client, files, page[None], found, **config).outputs

    assert (found.task, found.format) == ("detection", "detectron2")
    assert found.signature == detection.signature_of(LABELS, has_polygons=name == MASK)
    assert len(reference["scores"]) > 0
    order = np.argsort(-reference["scores"], kind="stable")
    np.testing.assert_allclose(outputs["scores"][0], reference["scores"][order], atol=1e-5)
    np.testing.assert_allclose(outputs["boxes"][0], reference["boxes"][order], atol=1e-2)
    assert outputs["labels"][0].tolist() == reference["labels"][order].tolist()
    if name == MASK:
        assert outputs["polygons"].shape[:2] == (1, len(order))


@needs_detectron2
def test_weights_of_another_network_are_refused(detectron2_client: HostClient, tmp_path: Path) -> None:
    np.save(tmp_path / "page.npy", page_with_black_boxes())
    files, _ = referred(tmp_path, FASTER, 0)
    config = files["config.yaml"].replace(b"NUM_CLASSES: 4", b"NUM_CLASSES: 9")
    told = rejection(detectron2_client, {**files, "config.yaml": config})
    assert told.code == "architecture_mismatch"
    assert "roi_heads.box_predictor" in told.reason
    assert rejection(detectron2_client, files, labels=["one"]).code == "labels_mismatch"
