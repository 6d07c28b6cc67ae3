"""Documents and a detector to read them, made here."""

import io
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from reportlab.lib.pagesizes import A4
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

LABELS = ["title", "table", "blank"]
LAYOUT = {
    "layout": "boxes_scores_labels",
    "labels": LABELS,
    "coordinates": "unit",
    "input": {"size": [64, 64], "resize": "stretch"},
}
# In parts of the page: a title and a table, of which the model is more and less sure.
BOXES = [[0.1, 0.05, 0.9, 0.15], [0.2, 0.5, 0.8, 0.75]]
SCORES = [0.9, 0.6]


def detector() -> bytes:
    """An ONNX graph that finds the same two things on every page."""
    constants: dict[str, np.ndarray] = {
        "boxes_there": np.array(BOXES, np.float32),
        "scores_there": np.array(SCORES, np.float32),
        "labels_there": np.array([0, 1], np.int64),
        "zero": np.zeros(1, np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["scores_there", "nothing"], ["scores"]),
        helper.make_node("Identity", ["boxes_there"], ["boxes"]),
        helper.make_node("Identity", ["labels_there"], ["labels"]),
    ]
    graph = helper.make_graph(
        nodes,
        "page",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [2, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, [2]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def pdf(pages: int = 3, password: str = "") -> bytes:
    """A PDF by reportlab, with its number on each page."""
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4, encrypt=StandardEncryption(password) if password else None)
    for number in range(1, pages + 1):
        canvas.setFont("Helvetica-Bold", 24)
        canvas.drawString(72, 760, f"Page {number}")
        canvas.rect(120, 210, 350, 200)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def picture(kind: str = "PNG", pages: int = 1, **options: Any) -> bytes:
    """An image file of this kind, of so many pages where it may have several."""
    out = io.BytesIO()
    first, *others = [Image.new("RGB", (200, 300), (200, 10 * number, 90)) for number in range(pages)]
    more = {"save_all": True, "append_images": others} if others else {}
    first.save(out, kind, **more, **options)
    return out.getvalue()
