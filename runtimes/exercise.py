"""What libraries do the first time only, done once by a zygote, so that no runner spends time and memory on it.

A first ONNX graph costs 30 ms of CPU and 8 MiB: the checker and the runtime build their tables of operators.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

ROWS = np.zeros((2, 2))


def exercise() -> None:
    """Use each library that is loaded once; what an old version of one cannot do stays undone."""
    for library, use in FIRST_USES.items():
        if library in sys.modules:
            with suppress(Exception):
                use()


def _use_onnx() -> None:
    from onnx import TensorProto, checker, helper

    from runtimes.formats.compiled import session_of

    shape: list[str | int | None] = ["n", ROWS.shape[1]]
    ends = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape) for name in ("x", "y")]
    node = helper.make_node("Identity", ["x"], ["y"])
    model = helper.make_model(
        helper.make_graph([node], "exercise", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 13)]
    )
    model.ir_version = 8  # of the same age as the operators: an old runtime knows it, too
    data = model.SerializeToString()
    checker.check_model(data)
    session_of(data).run(None, {"x": ROWS})


def _use_sklearn() -> None:
    import pandas
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    model = LogisticRegression()
    model.classes_, model.coef_, model.intercept_ = np.arange(2), np.ones((1, 2)), np.zeros(1)
    model.n_features_in_ = 2
    for estimator in (model, DecisionTreeClassifier().fit(ROWS, [0, 1])):
        estimator.predict(ROWS)
        estimator.predict_proba(ROWS)
    pandas.DataFrame({"a": [0.0, 1.0], "b": ["x", None]}).head()


def _use_torch() -> None:
    import torch

    torch.set_num_threads(1)
    model: Any = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    kept = io.BytesIO()
    torch.save(model.state_dict(), kept)
    kept.seek(0)
    model.load_state_dict(torch.load(kept, weights_only=True))
    with torch.inference_mode():
        model(torch.from_numpy(ROWS.astype(np.float32))).numpy()


def _use_pages() -> None:
    from PIL import Image, ImageDraw, ImageFont

    ImageDraw.Draw(Image.new("RGB", (9, 9))).text((0, 0), "0", font=ImageFont.load_default(size=12))
    Image.preinit()
    document = sys.modules["pypdfium2"].PdfDocument.new()
    document.new_page(9, 9).render().to_numpy()
    document.close()


FIRST_USES: Mapping[str, Callable[[], None]] = {
    "onnx": _use_onnx,
    "sklearn": _use_sklearn,
    "torch": _use_torch,
    "pypdfium2": _use_pages,
}
