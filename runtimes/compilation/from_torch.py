"""torch networks as ONNX: by the exporter that traces with symbols, and by the older one where that fails."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto

from runtimes import examples
from runtimes.compilation.attempts import Attempt, NotCompilable
from runtimes.formats.compiled import Plan
from runtimes.formats.pytorch import TorchPredictor
from runtimes.signature import STRING, Batch, Signature

SAMPLE_ROWS = 3
OPSET = 20
ROWS = "rows"


def knowledge(predictor: Any, signature: Signature) -> None:
    """Nothing: a network's weights say little about its inputs."""


def attempts(predictor: Any, signature: Signature) -> Iterator[Attempt]:
    """Ways to compile the predictor's network."""
    for exporter in (_traced_with_symbols, _traced):
        yield partial(convert, predictor, signature, exporter)


def convert(predictor: Any, signature: Signature, exporter: Any) -> tuple[ModelProto, Plan]:
    """The graph of a network, and how it is fed.

    Raises:
        NotCompilable: its inputs or its kind have no conversion.
    """
    if any(field.dtype == STRING for field in signature.inputs):
        raise NotCompilable("A network over strings is not compiled")
    scores = replace(signature, classes=None)
    sample = examples.sample_batch(scores, SAMPLE_ROWS)
    arguments = _arguments(sample, signature)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = exporter(_module(predictor.model), arguments, [field.name for field in signature.inputs])
    outputs = TorchPredictor(predictor.model, scores).predict(sample, probabilities=False).outputs
    if len(graph.graph.output) != len(outputs):
        raise NotCompilable("The exported graph has other outputs than the network")
    plan = Plan(
        "tensor" if signature.layout == "tensor" else "columns",
        tuple(field.dtype for field in signature.inputs),
        tuple(outputs),
        has_probabilities=False,
        makes_classes=signature.classes is not None,
        ends_in_sigmoid=predictor.ends_in_sigmoid,
    )
    return graph, plan


def _module(model: Any) -> Any:
    """The network itself: an exported program comes in a wrapper."""
    return model if isinstance(model, torch.nn.Module) else model.module


def _arguments(sample: Batch, signature: Signature) -> tuple[torch.Tensor, ...]:
    arrays = [sample[field.name] for field in signature.inputs] if isinstance(sample, Mapping) else [sample]
    return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)


def _traced_with_symbols(model: Any, arguments: tuple[torch.Tensor, ...], names: list[str]) -> ModelProto:
    """By torch.export, for any number of rows."""
    if isinstance(model, torch.jit.ScriptModule):
        raise NotCompilable("TorchScript has no symbols to trace with")
    logging.getLogger("torch.onnx").setLevel(logging.CRITICAL)
    rows = torch.export.Dim(ROWS)
    program = torch.onnx.export(
        model,
        arguments,
        input_names=names,
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes=tuple({0: rows} for _ in arguments),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def _traced(model: Any, arguments: tuple[torch.Tensor, ...], names: list[str]) -> ModelProto:
    """By TorchScript's tracer, which follows one way through the code: the comparison finds where there are others."""
    out = io.BytesIO()
    torch.onnx.export(
        model,
        arguments,
        out,  # type: ignore[arg-type]
        input_names=names,
        dynamo=False,
        opset_version=OPSET,
        dynamic_axes={name: {0: ROWS} for name in names},
    )
    return onnx.load_model_from_string(out.getvalue())
