"""detectron2's configuration: what of it is taken, and what an uploader without such a library set is told."""

from __future__ import annotations

import os

import pytest

from runtimes.bundle import Bundle
from runtimes.client import HostClient
from runtimes.errors import ArtifactRejected
from runtimes.formats import detectron2_config
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
        "INPUT: !!python/object/apply:os.system [id]",
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


LAUGHS = "a: &a [x]\n" + "\n".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("lines", "told"), [(LAUGHS, "more than 20000 values"), ("LOOP: &loop [*loop]", "nested without end")]
)
def test_a_configuration_that_refers_to_itself_ends(lines: str, told: str) -> None:
    with pytest.raises(ArtifactRejected) as rejected:
        read(f"{CONFIG}{lines}\n")

    assert told in rejected.value.reason


@pytest.mark.parametrize(
    "text", ["_BASE_: ../Base-RCNN-FPN.yaml\n", "MODEL: {META_ARCHITECTURE: RetinaNet}\n", CONFIG], ids=len
)
def test_a_configuration_is_found_however_it_is_written(text: str) -> None:
    bundle = Bundle(bundle_of({"model.pth": b"", "other.yaml": b"MODEL: 1\n", "cfg/config.yaml": text.encode()}))

    assert detectron2_config.find(bundle) == "cfg/config.yaml"


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
