"""Detectors: ONNX graphs read as they were declared, and the platform's own, which learns from COCO files."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from clients.demo import pages as made
from runtimes import detection
from runtimes.client import FitReport, HostClient, Progress
from runtimes.detection import AnnotatedImage, Detection
from runtimes.detection_layout import DetectionLayout
from runtimes.errors import InvalidSignature, ModelError
from runtimes.formats import torch_detector
from runtimes.limits import Limits
from runtimes.png_files import png_of
from runtimes.profiles import Profile
from tests.runtimes.bundles import inspected, rejection, served
from tests.runtimes.documents import stored
from tests.runtimes.test_fit import fit as fit_table
from tests.runtimes.test_fit import table

SIDE, CELL = 64, 8
CELLS = SIDE // CELL
LABELS = ["ink", "nothing"]
BLACK_SPOT = (32, 16, 40, 24)  # x0, y0, x1, y1 in a page of 64 by 64


def onnx(layout: str, *, channels_last: bool = False, size: object = SIDE) -> bytes:
    """A graph that finds ink: each cell of 8 by 8 pixels is a box, as sure as it is dark."""
    shape: list[Any] = [1, size, size, 3] if channels_last else [1, 3, size, size]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)
    nodes = [helper.make_node("Transpose", ["images"], ["channels"], perm=[0, 3, 1, 2])] if channels_last else []
    source = "channels" if channels_last else "images"
    nodes += [
        helper.make_node("AveragePool", [source], ["pooled"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("ReduceMean", ["pooled"], ["bright"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Reshape", ["dark", "row"], ["ink"]),
        helper.make_node("Mul", ["ink", "zero"], ["none"]),
    ]
    place = (np.arange(CELLS) + 0.5) * CELL
    x, y = np.tile(place, CELLS), np.repeat(place, CELLS)
    boxes = np.stack([x, y, np.full_like(x, CELL), np.full_like(x, CELL)]).astype(np.float32)[None]
    constants: dict[str, np.ndarray] = {
        "one": np.array(1, np.float32), "zero": np.array(0, np.float32), "row": np.array([1, 1, CELLS * CELLS]),
    }  # fmt: skip
    more, values, outputs = {"yolo": _yolo, "boxes_scores_labels": _three, "detr": _detr}[layout](boxes)
    kept = [numpy_helper.from_array(value, name) for name, value in {**constants, **values}.items()]
    told = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()]
    graph = helper.make_graph([*nodes, *more], "ink", [image], told, kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="by hand")
    model.ir_version = 8
    return bytes(model.SerializeToString())


def _yolo(boxes: np.ndarray) -> Any:
    nodes = [helper.make_node("Concat", ["boxes", "ink", "none"], ["output0"], axis=1)]
    return nodes, {"boxes": boxes}, {"output0": (TensorProto.FLOAT, [1, 6, CELLS * CELLS])}


def _three(boxes: np.ndarray) -> Any:
    middle, half = boxes[0, :2].T, boxes[0, 2:].T / 2
    corners = np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)
    nodes = [
        helper.make_node("Identity", ["corners"], ["boxes"]),
        helper.make_node("Reshape", ["ink", "flat"], ["scores"]),
        helper.make_node("Identity", ["firsts"], ["labels"]),
    ]
    values = {"corners": corners, "flat": np.array([CELLS * CELLS]), "firsts": np.ones(CELLS * CELLS, np.int64)}
    outputs = {
        "boxes": (TensorProto.FLOAT, [CELLS * CELLS, 4]),
        "labels": (TensorProto.INT64, [CELLS * CELLS]),
        "scores": (TensorProto.FLOAT, [CELLS * CELLS]),
    }
    return nodes, values, outputs


def _detr(boxes: np.ndarray) -> Any:
    """Logits of 20 where there is ink and -20 where there is none, for ink, nothing, and no object."""
    queries = (boxes[0].T / SIDE).astype(np.float32)[None]
    nodes = [
        helper.make_node("Mul", ["ink", "forty"], ["steep"]),
        helper.make_node("Sub", ["steep", "twenty"], ["sure"]),
        helper.make_node("Concat", ["sure", "never", "none"], ["stacked"], axis=1),
        helper.make_node("Transpose", ["stacked"], ["logits"], perm=[0, 2, 1]),
        helper.make_node("Identity", ["queries"], ["pred_boxes"]),
    ]
    values = {
        "forty": np.array(40, np.float32), "twenty": np.array(20, np.float32), "queries": queries,
        "never": np.full((1, 1, CELLS * CELLS), -20, np.float32),
    }  # fmt: skip
    float32, count = TensorProto.FLOAT, CELLS * CELLS
    return nodes, values, {"logits": (float32, [1, count, 3]), "pred_boxes": (float32, [1, count, 4])}


def page(height: int = SIDE, width: int = SIDE, box: tuple[int, int, int, int] = BLACK_SPOT) -> np.ndarray:
    """A white page with a black box on it."""
    image = np.full((1, height, width, 3), 255, np.uint8)
    x0, y0, x1, y1 = box
    image[:, y0:y1, x0:x1] = 0
    return image


def found_in(client: HostClient, data: bytes, image: np.ndarray, declared: dict[str, Any]) -> list[Detection]:
    files = {"model.onnx": data}
    found = inspected(client, files, detection=declared)
    assert (found.task, found.signature) == ("detection", detection.signature_of(declared["labels"]))
    answer = served(client, files, image, found, detection=declared)
    return detection.detections_of(answer, declared["labels"], 0.5, (image.shape[1], image.shape[2]))


@pytest.mark.parametrize(
    ("layout", "more"),
    [("yolo", {}), ("boxes_scores_labels", {"first_label": 1}),
     ("detr", {}), ("detr", {"activation": "sigmoid"})],
    ids=["yolo", "three outputs", "detr", "detr with a sigmoid"],
)  # fmt: skip
def test_a_graphs_outputs_are_read_as_declared(client: HostClient, layout: str, more: dict[str, Any]) -> None:
    declared = {"layout": layout, "labels": LABELS, "input": {"resize": "stretch"}, **more}
    (only,) = found_in(client, onnx(layout), page(), declared)
    assert only.label == "ink"
    assert only.box == pytest.approx(BLACK_SPOT, abs=1e-4)
    assert only.score == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_boxes_come_back_in_the_pages_own_pixels(client: HostClient, resize: str) -> None:
    declared = {"layout": "yolo", "labels": LABELS, "input": {"resize": resize, "pad": 255, "size": [SIDE, SIDE]}}
    # a page of 128 by 64: letterboxed, a cell is 16 by 16 of its pixels; stretched, 16 high and 8 wide
    box = (16, 32, 32, 48) if resize == "letterbox" else (8, 32, 16, 48)
    (only,) = found_in(client, onnx("yolo", size="any"), page(128, 64, box), declared)
    assert only.box == pytest.approx(box, abs=0.01)


def test_a_graph_may_take_channels_last_and_other_numbers(client: HostClient) -> None:
    told = {"layout": "nhwc", "resize": "stretch", "scale": 1, "mean": [0, 0, 0], "std": [255] * 3, "channels": "bgr"}
    declared = {"layout": "yolo", "labels": LABELS, "input": told}
    (only,) = found_in(client, onnx("yolo", channels_last=True), page(), declared)
    assert only.box == pytest.approx(BLACK_SPOT)


def test_a_graph_without_a_declaration_is_what_it_was(client: HostClient) -> None:
    assert rejection(client, {"model.onnx": onnx("yolo")}).code == "signature_needed"


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"layout": "yolo", "labels": ["a"]}, "does not hold boxes with 1 labels"),
        ({"layout": "detr", "labels": LABELS}, "no output for boxes, only output0"),
        ({"layout": "yolo", "labels": LABELS, "input": {"size": [32, 32]}}, "takes [64, 64] as height and width"),
        ({"layout": "yolo", "labels": LABELS, "outputs": {"detections": "gone"}}, "no output for detections"),
        ({"layout": "yolo", "labels": LABELS, "input": {"layout": "nhwc"}}, "takes [3, 64]"),
    ],
    ids=["labels", "layout", "size", "output", "channels"],
)
def test_a_declaration_that_is_not_the_graphs_is_refused(
    client: HostClient, declared: dict[str, Any], told: str
) -> None:
    if declared.get("input", {}).get("layout"):
        declared["input"]["size"] = [64, 64]
    assert told in rejection(client, {"model.onnx": onnx("yolo")}, detection=declared).reason


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (7, "detection is an object"),
        ({"labels": ["a"]}, "layout is one of yolo"),
        ({"layout": "yolo"}, "labels is a list of names"),
        ({"layout": "yolo", "labels": ["a", "a"]}, "a label comes twice"),
        ({"layout": "yolo", "labels": ["a"], "nms": 1}, "detection has no 'nms'"),
        ({"layout": "yolo", "labels": ["a"], "input": {"size": [640]}}, "size is [height, width]"),
        ({"layout": "yolo", "labels": ["a"], "input": {"size": [640, True]}}, "size is [height, width]"),
        ({"layout": "yolo", "labels": ["a"], "input": {"std": [0, 1, 1]}}, "std is a number from"),
        ({"layout": "yolo", "labels": ["a"], "min_score": float("nan")}, "min_score is a number from 0 to 1"),
        ({"layout": "yolo", "labels": ["a"], "outputs": {"detections": 3}}, "names the graph's outputs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_declaration_that_is_none_is_told_what_is_wrong(value: object, told: str) -> None:
    with pytest.raises(InvalidSignature, match="The declared detection is not right") as refused:
        DetectionLayout.from_json(value)
    assert told in refused.value.message


def test_a_detector_takes_one_image_at_a_time(client: HostClient) -> None:
    declared = {"layout": "yolo", "labels": LABELS}
    files = {"model.onnx": onnx("yolo")}
    found = inspected(client, files, detection=declared)
    for batch in (np.zeros((2, 9, 9, 3), np.uint8), np.zeros((1, 9, 9), np.uint8), np.zeros((1, 9, 9, 3))):
        with pytest.raises(ModelError, match="a detector takes"):
            served(client, files, batch, found, detection=declared)
    with pytest.raises(ModelError, match="no table of probabilities"):
        served(client, files, page(), found, probabilities=True, detection=declared)


# --- the platform's own ----------------------------------------------------------------------------------------------


def coco(count: int) -> bytes:
    return made.coco_zip(*made.make_pages(count, seed=3), dpi=36)


def fit_pages(client: HostClient, data: bytes, **options: Any) -> tuple[FitReport, bytes, list[Progress]]:
    out, progress = io.BytesIO(), list[Progress]()
    asked = {"params": {}, "validation": {"kind": "holdout", "fraction": 0.25}, "trainer": "page_detector", **options}
    with stored(data) as fd:
        report = client.fit(
            tenant="acme", target="label", dataset_fd=fd, out=out, format_name="coco", library_set="torch",
            on_progress=progress.append, limits=Limits(fit_seconds=300), **asked,
        )  # fmt: skip
    return report, out.getvalue(), progress


def test_the_sides_of_a_box_are_summed_from_cell_to_cell() -> None:
    """Each cell knows only whether the box reaches the next one's centre, and how far its end is where it does not."""
    box = torch.tensor([10.0, 20.0, 45.0, 37.0])
    centres = torch_detector.centres_of(6, 7)
    true = torch.cat([centres - box[:2], box[2:] - centres], dim=-1).permute(2, 0, 1) / torch_detector.STRIDE
    is_inside = (true > 0).all(dim=0)

    goes_on = (true > 1).float()
    ends = torch.where(true > 1, torch.full_like(true, 99.0), true)
    sides = torch_detector.sides_from(goes_on[None], ends[None])[0]

    assert is_inside.sum() == 10
    assert torch.allclose(sides[:, is_inside], true[:, is_inside])
    assert torch.allclose(torch_detector.boxes_from(centres, sides.permute(1, 2, 0))[is_inside], box)


SHAPES = ("block", "frame")
QUICK = {"epochs": 12, "width": 8, "longest_side": 128, "learning_rate": 0.01, "threads": 1, "most_seconds": 300}


def shapes(count: int, seed: int) -> list[tuple[np.ndarray, list[Detection]]]:
    """Pages of 120 by 96 with a black block in one half and a frame in the other: what is learned in seconds."""
    random, made = np.random.default_rng(seed), []
    for _ in range(count):
        image, found = np.full((120, 96, 3), 255, np.uint8), []
        for label, top in zip(random.permutation(SHAPES), (0, 60), strict=True):
            height, width = (int(side) for side in random.integers(20, 48, 2))
            x, y = int(random.integers(2, 94 - width)), top + int(random.integers(2, 58 - height))
            image[y : y + height, x : x + width] = 0
            if label == "frame":
                image[y + 3 : y + height - 3, x + 3 : x + width - 3] = 255
            found.append(Detection(str(label), 1.0, (x, y, x + width, y + height)))
        made.append((image, found))
    return made


def coco_of(made: list[tuple[np.ndarray, list[Detection]]]) -> bytes:
    named = [
        AnnotatedImage(f"{place}.png", image.shape[0], image.shape[1], found)
        for place, (image, found) in enumerate(made)
    ]
    told = json.dumps(detection.coco_document(named, SHAPES)).encode()
    pictures = {f"{place}.png": png_of(image) for place, (image, _) in enumerate(made)}
    return zipped(**{"annotations.json": told, **pictures})


@pytest.fixture(scope="module")
def trained(client: HostClient) -> tuple[FitReport, bytes, list[Progress]]:
    return fit_pages(client, coco_of(shapes(64, seed=1)), params=QUICK)


def test_a_fit_tells_how_it_goes_and_what_was_measured(trained: Any) -> None:
    report, artifact, progress = trained
    assert (report.task, report.format, report.artifact_name) == ("detection", "torch", "model.pth")
    assert report.artifact_bytes == len(artifact) > 100_000
    assert report.metrics.keys() == {"map50", "ap50 block", "ap50 frame"}
    assert report.metrics["map50"] > 0.7
    assert report.evaluation.rows == 16
    losses = [one.metrics["train_loss"] for one in progress if one.metrics and "train_loss" in one.metrics]
    assert losses[-1] < losses[0]
    assert [one.stage for one in progress][-1] == "saving"


def test_a_served_detector_finds_what_is_on_pages_that_it_has_not_seen(client: HostClient, trained: Any) -> None:
    report, artifact, _ = trained
    files, declared = {"model.pth": artifact}, dict(report.declared)

    found = inspected(client, files, **declared)
    pages = shapes(12, seed=2)
    answers = [served(client, files, image[None], found, **declared) for image, _ in pages]

    assert (found.task, found.format) == ("detection", "torch")
    assert found.signature == detection.signature_of(SHAPES)
    truth = [true for _, true in pages]
    told = [detection.detections_of(answer, SHAPES, size=(120, 96)) for answer in answers]
    assert detection.mean_average_precision(truth, told) > 0.7
    sure = [detection.detections_of(answer, SHAPES, 0.5, (120, 96)) for answer in answers]
    assert sum(map(len, sure)) >= 12, "what is right is told with a score that people keep"


@pytest.mark.parametrize(
    ("declared", "code"),
    [
        ({"labels": ["a"]}, "architecture_mismatch"),
        ({"architecture": {"detector": {"width": 16}}}, "architecture_mismatch"),
        ({"architecture": {"detector": {"width": 9}}}, "invalid_architecture"),
        ({"architecture": {"detector": {"side": 64}}}, "invalid_architecture"),
        ({"architecture": {"detector": {}}, "labels": None}, "invalid_architecture"),
    ],
    ids=["labels", "width", "odd width", "unknown", "no labels"],
)
def test_weights_of_another_detector_are_refused(
    client: HostClient, trained: Any, declared: dict[str, Any], code: str
) -> None:
    report, artifact, _ = trained
    assert rejection(client, {"model.pth": artifact}, **{**report.declared, **declared}).code == code


def test_a_fit_ends_when_its_time_is_up(client: HostClient) -> None:
    report, _, _ = fit_pages(client, coco_of(shapes(16, seed=3)), params={**QUICK, "epochs": 1000, "most_seconds": 2})
    assert report.duration_s < 60


def profiled(client: HostClient, data: bytes) -> Profile:
    with stored(data) as fd:
        return client.profile(dataset_fd=fd, format_name="coco")


Change = Callable[[dict[str, Any]], object]


def spoiled(change: Change) -> bytes:
    """A set of two pages whose annotations were changed."""
    source = zipfile.ZipFile(io.BytesIO(coco(2)))
    told = json.loads(source.read("annotations.json"))
    change(told)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in source.namelist():
            archive.writestr(name, json.dumps(told) if name.endswith(".json") else source.read(name))
    return out.getvalue()


def zipped(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"PK\x03\x04 no zip", "damaged zip archive"),
        (zipped(a=b"b"), "no JSON file with the lists images, annotations, categories"),
        (spoiled(lambda told: told["images"].clear()), "1 to 9,000 images, and this one 0"),
        (spoiled(lambda told: told["categories"].clear()), "1 to 1,000 categories, and this one 0"),
        (spoiled(lambda told: told["images"][1].update(file_name="gone.png")), "images[1]: the zip holds no image"),
        (spoiled(lambda told: told["images"][1].update(file_name="../../etc/passwd")), "holds no image '../../etc"),
        (spoiled(lambda told: told["images"][1].update(id=1)), "images[1] has no id of its own"),
        (spoiled(lambda told: told["images"][0].update(width=9)), "not inside of its image of 9 by"),
        (spoiled(lambda told: told["images"][0].update(height=0)), "images[0] has no height and width"),
        (spoiled(lambda told: told["annotations"][1].update(category_id=99)), "annotations[1] has the category 99"),
        (spoiled(lambda told: told["annotations"][1].update(image_id=99)), "annotations[1] is of an image that is not"),
        (spoiled(lambda told: told["annotations"][1].update(bbox=[1, 2, 0, 4])), "annotations[1] has an empty bbox"),
        (spoiled(lambda told: told["annotations"][1].update(bbox="all")), "annotations[1] has no bbox of four"),
        (spoiled(lambda told: told["annotations"][1].update(bbox=[0, 0, 9e9, 1])), "annotations[1] has a bbox that is"),
        (spoiled(lambda told: told.update(images=[{"id": 1}])), "images[0] has no file_name"),
    ],
    ids=["zip", "annotations", "images", "categories", "missing", "path", "id", "outside", "height", "category",
         "image", "empty", "text", "huge", "name"],
)  # fmt: skip
def test_what_is_wrong_with_annotations_is_told_by_its_place(client: HostClient, data: bytes, told: str) -> None:
    with pytest.raises(ModelError) as refused:
        profiled(client, data)
    assert refused.value.code == "invalid_dataset"
    assert told in refused.value.message


def test_an_image_that_is_none_is_told_by_its_name(client: HostClient) -> None:
    told = {
        "images": [{"id": 1, "file_name": "a.png", "width": 5, "height": 5}], "annotations": [],
        "categories": [{"id": 1, "name": "x"}],
    }  # fmt: skip
    data = zipped(**{"a.png": b"\x89PNG nothing", "x.json": json.dumps(told).encode()})
    with pytest.raises(ModelError, match=r"'a\.png' is no PNG, JPEG"):
        profiled(client, data)


def test_a_profile_counts_images_and_boxes_by_label(client: HostClient) -> None:
    data = coco(12)
    told = json.loads(zipfile.ZipFile(io.BytesIO(data)).read("annotations.json"))

    found = profiled(client, data)

    assert (found.row_count, found.names) == (12, ["image", "width", "height", "boxes", "label"])
    names = {one["id"]: one["name"] for one in told["categories"]}
    counted = [names[one["category_id"]] for one in told["annotations"]]
    label = found.columns[-1]
    assert {one.value: one.count for one in label.top} == {name: counted.count(name) for name in set(counted)}
    assert found.columns[3].mean == pytest.approx(len(counted) / 12)
    assert found.sample.rows[0][0] == "images/0001.png"


def test_tables_are_not_for_the_detector_nor_images_for_others(client: HostClient) -> None:
    with pytest.raises(ModelError, match="takes images with annotations"):
        fit_table(client, table(), trainer="page_detector", target="left", library_set="torch", params={})
    with pytest.raises(ModelError, match="images are for page_detector"):
        fit_pages(client, coco(2), trainer="random_forest_classifier")
