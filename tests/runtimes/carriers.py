"""Files of every format that run code when they are loaded."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import cloudpickle
import joblib
import skops.io
import torch

from tests.runtimes.payloads import Call, complete

Files = dict[str, bytes]
Carrier = Callable[[str], Files]


def _pickled(protocol: int) -> Carrier:
    return lambda code: {"model.pkl": pickle.dumps(_call(code), protocol=protocol)}


def _joblib(compress: Any) -> Carrier:
    def make(code: str) -> Files:
        file = io.BytesIO()
        joblib.dump(_call(code), file, compress=compress)
        return {"model.joblib": file.getvalue()}

    return make


def _cloudpickle(code: str) -> Files:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(f"def attack():\n    exec({complete(code)!r}, {{}})\n", space)
    return {"model.pkl": cloudpickle.dumps(Call(space["attack"]))}


def _torch(*, zipped: bool) -> Carrier:
    def make(code: str) -> Files:
        file = io.BytesIO()
        torch.save({"weight": torch.zeros(2), "x": _call(code)}, file, _use_new_zipfile_serialization=zipped)
        return {"model.pth": file.getvalue()}

    return make


def _skops(code: str) -> Files:
    """A tree whose root calls `exec`, by the loader that skops has for the parts of a __reduce__."""
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps((complete(code), {})))) as archive:
        arguments = json.loads(archive.read("schema.json"))
    kept = {name: arguments[name] for name in ("protocol", "_skops_version")}
    root = {"__class__": "exec", "__module__": "builtins", "__loader__": "ConstructorFromReduceNode", "__id__": 1}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("schema.json", json.dumps({**root, **kept, "content": arguments}))
    return {"model.skops": file.getvalue()}


def _travelling_code(code: str) -> Files:
    module = f"exec({complete(code)!r}, {{}})\nclass Model: pass\n"
    return {"model.pkl": b"cattack\nModel\n.", "code/attack.py": module.encode()}


def _network_code(code: str) -> Files:
    file = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, file)
    module = f"def build_model():\n    exec({complete(code)!r}, {{}})\n"
    return {"model.pth": file.getvalue(), "model.py": module.encode()}


def _mlflow(code: str) -> Files:
    flavour = (
        "flavors:\n  python_function:\n    loader_module: mlflow.pyfunc.model\n    python_model: python_model.pkl\n"
    )
    return {"MLmodel": flavour.encode(), "python_model.pkl": pickle.dumps(_call(code))}


def _mlflow_loader(code: str) -> Files:
    flavour = "flavors:\n  python_function:\n    loader_module: attack\n    code: code\n    data: data\n"
    module = f"def _load_pyfunc(path):\n    exec({complete(code)!r}, {{}})\n"
    return {"MLmodel": flavour.encode(), "code/attack.py": module.encode(), "data/x": b"x"}


def _zipped(code: str) -> Files:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path, data in _mlflow(code).items():
            archive.writestr(path, data)
    return {"model.zip": file.getvalue()}


def _call(code: str) -> Call:
    return Call(exec, complete(code), {})


CARRIERS: Mapping[str, Carrier] = {
    "pickle of protocol 0": _pickled(0),
    "pickle of protocol 2": _pickled(2),
    "pickle of protocol 5": _pickled(5),
    "joblib": _joblib(0),
    "joblib by zlib": _joblib(("zlib", 3)),
    "joblib by xz": _joblib(("xz", 3)),
    "cloudpickle": _cloudpickle,
    "torch": _torch(zipped=True),
    "older torch": _torch(zipped=False),
    "skops": _skops,
    "code beside a pickle": _travelling_code,
    "code beside weights": _network_code,
    "MLflow's Python model": _mlflow,
    "MLflow's loader module": _mlflow_loader,
    "zipped MLflow folder": _zipped,
}
