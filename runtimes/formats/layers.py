"""A torch network from a declared list of layers: `[{"type": "linear", "in_features": 4, "out_features": 3}, …]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from runtimes.errors import ArtifactRejected, plain

MAX_LAYERS = 1_000
NOT_PARAMETERS = frozenset({"type", "name"})

# type -> module; the parameters of a layer are those of its torch module, under torch's names
LAYERS: Mapping[str, type[nn.Module]] = {
    "linear": nn.Linear,
    "bilinear": nn.Bilinear,
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
    "convtranspose2d": nn.ConvTranspose2d,
    "maxpool1d": nn.MaxPool1d,
    "maxpool2d": nn.MaxPool2d,
    "avgpool1d": nn.AvgPool1d,
    "avgpool2d": nn.AvgPool2d,
    "adaptiveavgpool1d": nn.AdaptiveAvgPool1d,
    "adaptiveavgpool2d": nn.AdaptiveAvgPool2d,
    "adaptivemaxpool2d": nn.AdaptiveMaxPool2d,
    "batchnorm1d": nn.BatchNorm1d,
    "batchnorm2d": nn.BatchNorm2d,
    "layernorm": nn.LayerNorm,
    "groupnorm": nn.GroupNorm,
    "instancenorm2d": nn.InstanceNorm2d,
    "dropout": nn.Dropout,
    "dropout1d": nn.Dropout1d,
    "dropout2d": nn.Dropout2d,
    "embedding": nn.Embedding,
    "flatten": nn.Flatten,
    "unflatten": nn.Unflatten,
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leakyrelu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "softmax": nn.Softmax,
    "logsoftmax": nn.LogSoftmax,
}
OVER_CLASSES = frozenset({"softmax", "logsoftmax"})


class Reshape(nn.Module):
    """Gives every row a shape."""

    def __init__(self, shape: list[int]) -> None:
        super().__init__()
        self.shape = tuple(int(size) for size in shape)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows in that shape."""
        return rows.reshape(rows.shape[0], *self.shape)


def kind_of(layer: Any) -> str:
    """A declared layer's type as it is looked up: `BatchNorm2d`, `batch_norm2d` and `batchnorm2d` are one."""
    kind = layer.get("type") if isinstance(layer, Mapping) else layer
    return str(kind).lower().replace("_", "").replace("-", "")


def layers_of(architecture: Any) -> list[Any]:
    """The declared layers: the list itself, or what an object has under `layers`."""
    layers = architecture.get("layers") if isinstance(architecture, Mapping) else architecture
    if not isinstance(layers, list) or not 0 < len(layers) <= MAX_LAYERS:
        raise _invalid('it is a list of layers such as {"type": "relu"}')
    return layers


def build(architecture: Any) -> nn.Sequential:
    """The network without memory for its weights, which the state dict brings.

    Raises:
        ArtifactRejected: a layer is unknown, or its parameters are not torch's.
    """
    with torch.device("meta"):
        return nn.Sequential(*(_layer(layer, number) for number, layer in enumerate(layers_of(architecture), start=1)))


def _layer(layer: Any, number: int) -> nn.Module:
    kind = kind_of(layer)
    parameters = layer if isinstance(layer, Mapping) else {}
    given = {str(name): value for name, value in parameters.items() if name not in NOT_PARAMETERS}
    try:
        if kind in ("reshape", "view"):
            return Reshape(**given)
        if kind in OVER_CLASSES:
            given.setdefault("dim", 1)
        return LAYERS[kind](**{name: _as_tuple(value) for name, value in given.items()})
    except KeyError:
        raise _invalid(f"layer {number} has the unknown type {plain(kind, 40)!r}") from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise _invalid(f"layer {number} ({plain(kind, 40)}): {plain(error, 200)}") from error


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _invalid(why: str) -> ArtifactRejected:
    return ArtifactRejected("invalid_architecture", f"The declared architecture cannot be built: {why}.")


def fill(network: nn.Sequential, weights: Mapping[str, torch.Tensor]) -> list[str]:
    """Give the network its weights: by name, or in their order when names differ and every shape agrees.

    Returns warnings.

    Raises:
        ArtifactRejected: the weights are not of this architecture.
    """
    wanted = network.state_dict()
    given = {name.removeprefix("module."): weight for name, weight in weights.items()}
    notes: list[str] = []
    if given.keys() != wanted.keys():
        given = dict(zip(wanted, given.values(), strict=False)) if len(given) == len(wanted) else given
        notes.append("The weights' names are not those of a list of layers; they were matched in their order.")
    unlike = [name for name, weight in wanted.items() if name not in given or given[name].shape != weight.shape]
    if unlike or given.keys() != wanted.keys():
        raise ArtifactRejected("architecture_mismatch", _difference(wanted, weights, unlike))
    network.load_state_dict(given, assign=True)
    return notes


def _difference(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], unlike: list[str]) -> str:
    if len(wanted) != len(given):
        counts = f"it has {len(wanted)} weights and the file {len(given)}"
        return f"The state dict is not of the declared architecture: {counts}."
    name = unlike[0]
    place = list(wanted).index(name)
    found = list(given)[place]
    shapes = f"{name} is {list(wanted[name].shape)} and the file's {plain(found, 80)} {list(given[found].shape)}"
    return f"The state dict is not of the declared architecture: {shapes}."
