"""The network that a bundle's `model.py` describes, for a file that holds weights only.

The contract: `model.py` lies beside the weights or in `code/`, and defines one of, in this order:
a function `build_model()` or `model()` that returns the network, the network itself as `model`, or one class derived
from `torch.nn.Module` that can be made without arguments (of several, the one named `Model` or `Net`). The metadata may
name another one, and what it takes: `"architecture": {"factory": "Net", "arguments": {"hidden": 32}}`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from runtimes.bundle import Files
from runtimes.bundled_code import MAIN, ROOTS
from runtimes.errors import ArtifactRejected, describe, plain

FACTORIES = ("build_model", "model")
USUAL_NAMES = ("Model", "Net")


def is_there(files: Files) -> bool:
    """Whether a `model.py` travels with the weights."""
    return any(f"{root}{MAIN}.py" in files.paths() for root in ROOTS)


def network(architecture: Any, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """The network of `model.py`, with these weights.

    Raises:
        ArtifactRejected: `model.py` defines none, or the weights are not of it.
    """
    declared = architecture if isinstance(architecture, Mapping) else {}
    arguments = declared.get("arguments") or {}
    made = _made(_factory(importlib.import_module(MAIN), declared.get("factory")), arguments)
    given = {name.removeprefix("module."): weight for name, weight in weights.items()}
    try:
        made.load_state_dict(given)
    except RuntimeError as error:
        reason = f"The state dict is not of the network in {MAIN}.py ({plain(error, 300)})."
        raise ArtifactRejected("architecture_mismatch", reason) from error
    return made


def _factory(module: ModuleType, name: Any) -> Any:
    if name is not None:
        factory = getattr(module, str(name), None)
        if factory is None:
            raise _invalid(f"it has no {plain(name, 60)}")
        return factory
    for usual in FACTORIES:
        if (factory := getattr(module, usual, None)) is not None:
            return factory
    classes = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__
    }
    chosen = classes if len(classes) == 1 else {name: classes[name] for name in USUAL_NAMES if name in classes}
    if len(chosen) == 1:
        return next(iter(chosen.values()))
    if not classes:
        raise _invalid("it defines neither build_model() nor a class derived from torch.nn.Module")
    names = ", ".join(plain(name, 40) for name in list(classes)[:5])
    raise _invalid(f"it defines several networks ({names}); add a function build_model() that returns the one")


def _made(factory: Callable[..., Any] | nn.Module, arguments: Mapping[str, Any]) -> nn.Module:
    if isinstance(factory, nn.Module):
        return factory
    try:
        made = factory(**arguments)
    except Exception as error:
        raise _invalid(f"the network could not be made ({describe(error, 200)})") from error
    if not isinstance(made, nn.Module):
        raise _invalid(f"it gives a {plain(type(made).__name__, 60)}, which is no torch.nn.Module")
    return made


def _invalid(why: str) -> ArtifactRejected:
    return ArtifactRejected("invalid_architecture", f"The file {MAIN}.py cannot be used: {why}.")
