"""torch models that `torch.export.save` wrote: a graph with its weights, and no Python code."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.export._trace
import torch.export.pt2_archive._package  # these two are what loading a program would import in every runner

from runtimes.bundle import Files
from runtimes.errors import ArtifactRejected, plain
from runtimes.folders import ZipFolder
from runtimes.formats.notices import notices
from runtimes.formats.pytorch import DTYPES, INPUT_NAME, Loaded, TorchModel
from runtimes.protocol import Runtime, Source
from runtimes.signature import Field

TORCH_VERSION = re.compile(rb'"torch_version"\s*:\s*"([\w.]{1,40})')
NUMERIC: Mapping[Any, str] = {
    **DTYPES,
    **{getattr(torch, name): name for name in ("int8", "int16", "int32", "int64", "uint8", "bool")},
}


class ExportedModel(TorchModel):
    """A `.pt2` file. Its first dimension has to be free: it is the rows."""

    def _read(self, source: Source) -> Loaded:
        started = time.monotonic()
        with warnings.catch_warnings(record=True) as caught, source.bundle.open(source.path) as file:
            warnings.simplefilter("always")
            program = torch.export.load(file)
            network = Exported(program)
        made_with = _made_with(source.bundle, source.path)
        return Loaded(network, "ExportedProgram", notices(caught), time.monotonic() - started, made_with)

    def _fields(self, model: Any) -> tuple[Field, ...] | None:
        fields: tuple[Field, ...] = model.fields
        return fields


class Exported:
    """An exported program as a network that takes any number of rows."""

    def __init__(self, program: Any) -> None:
        self.module = program.module()
        values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
        names = [str(name) for name in program.graph_signature.user_inputs]
        self._size = _fixed_rows([values[name] for name in names])
        self.fields = tuple(_field(_shown(name, len(names)), values[name]) for name in names)

    def __call__(self, *tensors: torch.Tensor) -> Any:
        """The program's outputs for these rows; one that was exported for a single row is asked for each."""
        if self._size is None or tensors[0].shape[0] == self._size:
            return self.module(*tensors)
        rows = [self.module(*(tensor[place : place + 1] for tensor in tensors)) for place in range(len(tensors[0]))]
        return _joined(rows)

    def modules(self) -> list[Any]:
        """The layers that are known by their types: none is left of them."""
        return [self]

    def parameters(self) -> list[Any]:
        """The weights."""
        return list(self.module.parameters())


def _shown(name: str, count: int) -> str:
    return INPUT_NAME if count == 1 else plain(name, 200)


def _fixed_rows(values: list[Any]) -> int | None:
    """How many rows the program takes at once; None for any number.

    Raises:
        ArtifactRejected: several, but no other number.
    """
    first = [value.shape[0] for value in values if getattr(value, "ndim", 0) > 0]
    fixed = {size for size in first if type(size) is int}  # a free size is a symbol
    if not fixed:
        return None
    if fixed != {1} or not all(type(size) is int for size in first):
        reason = (
            f"The program was exported for exactly {max(fixed)} rows; export it with a first dimension that is free: "
            "dynamic_shapes=({0: torch.export.Dim('rows')},)."
        )
        raise ArtifactRejected("fixed_rows", reason)
    return 1


def _field(name: str, value: Any) -> Field:
    dtype = NUMERIC.get(getattr(value, "dtype", None))
    if dtype is None or value.ndim == 0:
        raise ArtifactRejected("signature_needed", f"The program's input '{plain(name, 60)}' is no tensor with rows.")
    return Field(name, dtype, (-1, *(size if type(size) is int else -1 for size in value.shape[1:])))


def _joined(parts: list[Any]) -> Any:
    first = parts[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(parts)
    if isinstance(first, Mapping):
        return {name: _joined([part[name] for part in parts]) for name in first}
    if isinstance(first, list | tuple):
        return tuple(_joined([part[place] for part in parts]) for place in range(len(first)))
    return first


def _made_with(files: Files, path: str) -> dict[str, str]:
    """torch's version, which the description of the graph names."""
    with files.open(path) as file:
        folder = ZipFolder(file, files.size(path))
        graphs = [name for name in folder.paths() if "/models/" in name and name.endswith(".json")]
        found = TORCH_VERSION.search(folder.read(graphs[0])) if graphs else None
    return {"torch": found[1].decode()} if found else {}


RUNTIMES: Mapping[str, Runtime] = {"torch_export": ExportedModel("torch_export")}
