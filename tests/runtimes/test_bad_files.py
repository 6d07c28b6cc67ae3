"""Files of every format, cut, changed, renamed and packed wrongly: each ends in a named error."""

from __future__ import annotations

import functools
import io
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skl2onnx
import skops.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from runtimes.client import HostClient
from runtimes.errors import ArtifactRejected
from runtimes.limits import MIB, Limits
from tests.runtimes.bundles import Files
from tests.runtimes.conftest import bundle_of
from tests.runtimes.test_folders import zipped

LIMITS = Limits(memory_bytes=512 * MIB, load_seconds=10.0, cpu_seconds=10)
ROWS = np.random.default_rng(9).normal(size=(40, 4))
TARGET = (ROWS[:, 0] > 0).astype(int)
EXAMPLES = 5  # of each format: every one costs a runner or two


def _joblib() -> Files:
    file = io.BytesIO()
    joblib.dump(DecisionTreeClassifier().fit(ROWS, TARGET), file, compress=3)
    return {"model.joblib": file.getvalue()}


def _onnx() -> Files:
    model = LogisticRegression().fit(ROWS, TARGET)
    return {"model.onnx": skl2onnx.to_onnx(model, ROWS[:1].astype("float32")).SerializeToString()}


def _torch(kind: str) -> Files:
    import torch

    network = torch.nn.Sequential(torch.nn.Linear(4, 2))
    file = io.BytesIO()
    if kind == "script":
        torch.jit.save(torch.jit.script(network), file)
    elif kind == "export":
        shapes = ({0: torch.export.Dim("rows")},)
        torch.export.save(torch.export.export(network, (torch.zeros(2, 4),), dynamic_shapes=shapes), file)
    else:
        torch.save(network, file)
    return {"model.pth": file.getvalue()}


def _booster(name: str) -> Files:
    library = pytest.importorskip(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("model.txt" if name == "lightgbm" else "model.ubj")
        if name == "lightgbm":
            library.LGBMClassifier(n_estimators=3, verbose=-1).fit(ROWS, TARGET).booster_.save_model(str(path))
        else:
            library.XGBClassifier(n_estimators=3).fit(ROWS, TARGET).save_model(str(path))
        return {path.name: path.read_bytes()}


def _mlflow() -> Files:
    described = b"flavors:\n  sklearn: {pickled_model: model.pkl, sklearn_version: 1.9.1}\n"
    signature = (
        b"""signature: {inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 4]}}]'}\n"""
    )
    return {"MLmodel": described + signature, "model.pkl": pickle.dumps(LogisticRegression().fit(ROWS, TARGET))}


MAKERS: Mapping[str, Callable[[], Files]] = {
    "pickle": lambda: {"model.pkl": pickle.dumps(LogisticRegression().fit(ROWS, TARGET))},
    "joblib": _joblib,
    "skops": lambda: {"model.skops": skops.io.dumps(LogisticRegression().fit(ROWS, TARGET))},
    "onnx": _onnx,
    "torch": lambda: _torch("module"),
    "torchscript": lambda: _torch("script"),
    "torch export": lambda: _torch("export"),
    "xgboost": lambda: _booster("xgboost"),
    "lightgbm": lambda: _booster("lightgbm"),
    "mlflow": _mlflow,
    "zipped mlflow": lambda: {"model.zip": zipped(dict(_mlflow()))},
}
made = functools.cache(lambda kind: MAKERS[kind]())


def ends_well(client: HostClient, files: Files) -> str:
    """The rejection's code, or "" where the files are fine all the same; anything else fails the test."""
    fd = bundle_of(files)
    try:
        client.inspect(fd, tenant="acme", metadata={}, limits=LIMITS)
    except ArtifactRejected as rejected:
        return rejected.code if rejected.reason.endswith((".", "…")) else f"no sentence: {rejected.reason}"
    finally:
        os.close(fd)
    return ""


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=EXAMPLES, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.data())
def test_a_damaged_file_ends_in_a_named_error(client: HostClient, kind: str, chosen: Any) -> None:
    files = dict(made(kind))
    path = chosen.draw(st.sampled_from(sorted(files)))
    data = bytearray(files[path])
    how = chosen.draw(st.sampled_from(["cut", "flip", "flip many", "zeros", "doubled"]))
    places = st.integers(0, len(data) - 1)
    if how == "cut":
        del data[chosen.draw(places) :]
    elif how == "zeros":
        start = chosen.draw(places)
        data[start : start + 64] = bytes(len(data[start : start + 64]))
    elif how == "doubled":
        data += bytes(data)
    else:
        for place in chosen.draw(st.lists(places, min_size=1, max_size=1 if how == "flip" else 30)):
            data[place] ^= chosen.draw(st.integers(1, 255))

    assert " " not in ends_well(client, {**files, path: bytes(data)})


@pytest.mark.parametrize("kind", MAKERS)
def test_the_name_says_nothing(client: HostClient, kind: str) -> None:
    files = made(kind)
    renamed = files if len(files) > 1 else {"picture.png": next(iter(files.values()))}

    assert ends_well(client, renamed) == ""


@pytest.mark.parametrize("kind", MAKERS)
def test_a_zipped_file_is_read_and_one_zipped_twice_is_refused(client: HostClient, kind: str) -> None:
    once = zipped(dict(made(kind)))

    assert ends_well(client, {"a.zip": once}) == ("unsupported_format" if kind == "zipped mlflow" else "")
    assert ends_well(client, {"a.zip": zipped({"b.zip": once})}) == "unsupported_format"


def bomb() -> bytes:
    """A pickle in a zip that says it holds 4 GiB of zeros."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("model.pkl", "w") as file,
    ):
        file.write(b"\x80\x04")
        for _ in range(96):
            file.write(bytes(1 << 20))
    return out.getvalue()


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"model.pkl": b""}, "unreadable_artifact"),
        ({"MLmodel": b""}, "unreadable_artifact"),
        ({"a.zip": zipped({})}, "unsupported_format"),
        ({"a.zip": zipped({"../model.pkl": b"\x80\x04."})}, "bad_archive"),
        ({"a.zip": zipped({"/model.pkl": b"\x80\x04."})}, "bad_archive"),
        ({"a.zip": bomb()}, "bad_archive"),
        ({"a.skops": zipped({"schema.json": b"{}"})}, "unreadable_artifact"),
        ({"a.pth": zipped({"x/data.pkl": b"\x80\x02."})}, "unreadable_artifact"),
        ({"a.pt2": zipped({"x/archive_format": b"pt2", "x/models/model.json": b"{"})}, "unreadable_artifact"),
        ({"a.json": b'{"learner": {}}'}, "unreadable_artifact"),
        ({"a.txt": b"tree\nversion=v4\n"}, "unreadable_artifact"),
        ({"a.json": b'{"learner":' + b"[" * 5000}, "unreadable_artifact"),
    ],
    ids=[
        "empty",
        "no MLmodel",
        "no files",
        "leads up",
        "absolute",
        "bomb",
        "skops",
        "torch",
        "pt2",
        "json",
        "txt",
        "deep",
    ],
)
def test_what_only_looks_like_a_model_is_named(client: HostClient, files: Files, code: str) -> None:
    assert ends_well(client, files) == code
