"""The artifact formats, one module each, and how a file's content says which it is."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from runtimes.protocol import Runtime

# format -> (library set, module); a module is imported only where its library set is at home
FORMATS: Mapping[str, tuple[str, str]] = {
    "sklearn": ("sklearn", "runtimes.formats.scikit_learn"),
    "skops": ("sklearn", "runtimes.formats.skops_file"),
    "onnx": ("sklearn", "runtimes.formats.onnx_graph"),
    "torch": ("torch", "runtimes.formats.pytorch"),
    "torchscript": ("torch", "runtimes.formats.pytorch"),
    "torch_export": ("torch", "runtimes.formats.torch_export"),
    "pyfunc": ("sklearn", "runtimes.formats.pyfunc"),
    "xgboost": ("sklearn", "runtimes.formats.boosters"),
    "lightgbm": ("sklearn", "runtimes.formats.boosters"),
    "detectron2": ("detectron2", "runtimes.formats.detectron2_model"),
}


# format -> the library set that serves it where that is a lighter one: forking it takes a tenth of the time
SERVED_LIGHTER: Mapping[str, str] = {"onnx": "onnx"}


def library_set(format_name: str) -> str:
    """The name of the library set that inspects a format."""
    return FORMATS[format_name][0]


def serving_set(format_name: str) -> str:
    """The name of the library set that serves a format."""
    return SERVED_LIGHTER.get(format_name, library_set(format_name))


def runtime(format_name: str) -> Runtime:
    """The adapter of a format; importing it costs its library where that is not warm."""
    module = importlib.import_module(FORMATS[format_name][1])
    adapter: Runtime = module.RUNTIMES[format_name]
    return adapter
