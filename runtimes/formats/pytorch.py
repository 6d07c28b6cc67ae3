"""torch models: a state dict with a declared architecture, a pickled module, TorchScript."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import nn

from runtimes import examples
from runtimes.errors import ArtifactRejected, plain
from runtimes.formats import layers, module_code, torch_detector
from runtimes.formats.notices import notices
from runtimes.formats.outputs import ClassTable, named_arrays, prove
from runtimes.formats.torch_detector import TorchDetector
from runtimes.protocol import Findings, OnStage, Prediction, Runtime, Source, Task
from runtimes.signature import Batch, ClassName, Field, Signature

SAMPLE_ROWS = 2
INPUT_NAME = "input"
OUTPUT_NAME = "output"
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.float16: "float16"}


@dataclass(frozen=True)
class Loaded:
    """A network as it came out of its file."""

    model: Any
    type_name: str
    warnings: list[str]
    load_seconds: float
    made_with: dict[str, str] = field(default_factory=dict)


class TorchModel(Runtime):
    """A `.pth` file: a state dict or a whole module; or, as TorchScript, a compiled one."""

    library_set = "torch"

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self, source: Source) -> TorchPredictor | TorchDetector:
        """The network in evaluation mode, ready to predict by the declared signature."""
        if self.name == "torch" and torch_detector.is_declared(source.options):
            return torch_detector.load(source)
        signature = Signature.from_json(source.options["signature"])
        return TorchPredictor(self._read(source).model, signature)

    def inspect(self, source: Source, on_stage: OnStage) -> Findings:
        """What the network takes and gives, proved by predicting sample rows."""
        if self.name == "torch" and torch_detector.is_declared(source.options):
            return torch_detector.inspect(self.name, source, on_stage)
        on_stage("loading")
        loaded = self._read(source)
        on_stage("predicting a sample")
        signature, task = _find_signature(loaded.model, self._fields(loaded.model), source.options)
        found = (loaded.type_name, loaded.made_with, loaded.warnings, loaded.load_seconds)
        return Findings(self.name, task, signature, *found)

    def _fields(self, model: Any) -> tuple[Field, ...] | None:
        """The inputs that the file itself names; None where it names none."""
        return None

    def _read(self, source: Source) -> Loaded:
        started = time.monotonic()
        with warnings.catch_warnings(record=True) as caught, source.bundle.open(source.path) as file:
            warnings.simplefilter("always")
            if self.name == "torchscript":
                model, notes = _script(file)
            else:
                content = torch.load(file, map_location="cpu", weights_only=False)
                model, notes = _network(content, source)
        model.eval()
        kind = plain(getattr(model, "original_name", type(model).__name__), 80)
        return Loaded(model, kind, notes + notices(caught), time.monotonic() - started)


def _script(file: BinaryIO) -> tuple[Any, list[str]]:
    return torch.jit.load(file, map_location="cpu"), []  # type: ignore[no-untyped-call]


def _network(content: Any, source: Source) -> tuple[nn.Module, list[str]]:
    """The module that a `.pth` file's content is or describes, and warnings."""
    if isinstance(content, nn.Module):
        return content, []
    weights = _weights(content)
    if weights is None:
        kind = plain(type(content).__name__, 80)
        raise ArtifactRejected("no_predict_method", f"The file holds a {kind}, neither a module nor a state dict.")
    architecture = source.options.get("architecture")
    if module_code.is_there(source.bundle) and not _is_layers(architecture):
        return module_code.network(architecture, weights), []
    if not architecture:
        raise ArtifactRejected(
            "architecture_needed",
            "The file holds weights only; declare their architecture as a list of layers in the metadata, upload "
            "model.py with a function build_model() beside it, or upload TorchScript.",
        )
    network = layers.build(architecture)
    return network, layers.fill(network, weights)


def _is_layers(architecture: Any) -> bool:
    return isinstance(architecture, list) or (isinstance(architecture, Mapping) and "layers" in architecture)


def _weights(content: Any) -> Mapping[str, torch.Tensor] | None:
    """The state dict, found under the usual names when it is part of a checkpoint."""
    if not isinstance(content, Mapping):
        return None
    for name in WRAPPERS:
        if isinstance(content.get(name), Mapping):
            content = content[name]
    is_state_dict = content and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items())
    return content if is_state_dict else None


class TorchPredictor:
    """A network fed with tensors: one, or one for each input in the signature's order."""

    is_batchable = True
    compiler = "runtimes.compilation.from_torch"

    def __init__(self, model: Any, signature: Signature) -> None:
        self.model, self._signature = model, signature
        self.ends_in_sigmoid = _last_layer(model) == "Sigmoid"
        self._table = None
        if signature.classes:
            self._table = ClassTable(signature.classes, ends_in_sigmoid=self.ends_in_sigmoid)

    def predict(self, batch: Batch, *, probabilities: bool) -> Prediction:
        """Predict every row; a classifier's scores become class names, and probabilities on request."""
        with torch.inference_mode():
            outputs = named_arrays(_to_numpy(self.model(*self._tensors(batch))), OUTPUT_NAME)
        if self._table is None:
            if probabilities:
                raise ValueError("the model has no classes, so it has no probabilities")
            return Prediction(outputs)
        return self._table.prediction(outputs, probabilities=probabilities)

    def _tensors(self, batch: Batch) -> list[torch.Tensor]:
        arrays = [batch[field.name] for field in self._signature.inputs] if isinstance(batch, dict) else [batch]
        return [
            torch.from_numpy(np.ascontiguousarray(array, dtype=field.dtype))
            for array, field in zip(arrays, self._signature.inputs, strict=True)
        ]


def _last_layer(model: Any) -> str:
    """The type name of the innermost last module, of a scripted network too."""
    last = list(model.modules())[-1]
    return str(getattr(last, "original_name", type(last).__name__))


def _to_numpy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(name): _to_numpy(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_to_numpy(part) for part in value)
    return value


def _find_signature(model: Any, fields: tuple[Field, ...] | None, options: Mapping[str, Any]) -> tuple[Signature, Task]:
    """The signature, declared or inferred, and the task, both proved by a prediction."""
    draft, sample, is_declared = _inputs(model, fields, options)
    untyped = TorchPredictor(model, Signature(draft.layout, draft.inputs, ()))
    told = "made-up numbers (send a signature or an input_example if it takes others)"
    outputs = prove(untyped, sample, told, probabilities=False, is_declared=is_declared).outputs
    classes = _classes(draft, options, outputs)
    table = Signature(draft.layout, draft.inputs, (), classes)
    prediction = TorchPredictor(model, table).predict(sample, probabilities=classes is not None)
    given = tuple(examples.field_of(name, values) for name, values in prediction.outputs.items())
    return Signature(draft.layout, draft.inputs, given, classes), _task(classes, outputs)


def _inputs(model: Any, fields: tuple[Field, ...] | None, options: Mapping[str, Any]) -> tuple[Signature, Batch, bool]:
    """A draft with the input fields, a sample batch, and whether somebody declared them."""
    example = options.get("input_example")
    batch = examples.batch_from_example(example) if example is not None else None
    if options.get("signature"):
        declared = Signature.from_json(options["signature"])
        sample = examples.sample_batch(declared, SAMPLE_ROWS) if batch is None else examples.cast(batch, declared)
        return declared, sample, True
    if fields is None:
        fields = (_field_of_example(model, batch) if batch is not None else _first_field(model, options),)
    draft = Signature("tensor" if len(fields) == 1 else "columns", fields, ())
    batch = batch if isinstance(batch, dict) == (draft.layout == "columns") else None
    sample = examples.sample_batch(draft, SAMPLE_ROWS) if batch is None else examples.cast(batch, draft)
    return draft, sample, False


def _field_of_example(model: Any, batch: Batch) -> Field:
    if isinstance(batch, dict):
        raise ArtifactRejected("signature_needed", "A torch model with named inputs needs a declared signature.")
    return Field(INPUT_NAME, _input_dtype(model), (-1, *batch.shape[1:]))


def _input_dtype(model: Any) -> str:
    if any(isinstance(module, nn.Embedding) for module in model.modules()):
        return "int64"
    return next((DTYPES[weight.dtype] for weight in model.parameters() if weight.dtype in DTYPES), "float32")


def _first_field(model: Any, options: Mapping[str, Any]) -> Field:
    """The input that the first layer tells: a linear layer's width, or the size of a first reshape."""
    shape = _declared_shape(options.get("architecture"))
    if shape is None:
        weight = next(iter(model.parameters()), None)
        if weight is None or weight.dim() != 2:
            raise _signature_needed("The network does not say what shape its input has")
        shape = (int(weight.shape[1]),)
    return Field(INPUT_NAME, _input_dtype(model), (-1, *shape))


def _declared_shape(architecture: Any) -> tuple[int, ...] | None:
    first = layers.layers_of(architecture)[0] if _is_layers(architecture) else None
    if first is None or layers.kind_of(first) not in ("reshape", "view"):
        return None
    return (int(np.prod(first["shape"])),)


def _signature_needed(why: str) -> ArtifactRejected:
    return ArtifactRejected("signature_needed", plain(f"{why}; send a signature or an input_example with it."))


def _classes(
    draft: Signature, options: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
) -> tuple[ClassName, ...] | None:
    """The class names: declared, or numbers where the last layer is a softmax."""
    scores = next(iter(outputs.values()))
    declared = tuple(options.get("labels") or draft.classes or ())
    if not declared:
        architecture = options.get("architecture")
        last = layers.kind_of(layers.layers_of(architecture)[-1]) if _is_layers(architecture) else ""
        return tuple(range(scores.shape[1])) if last in layers.OVER_CLASSES and scores.ndim == 2 else None
    if not ClassTable.fits(scores, len(declared)):
        shape = list(scores.shape[1:])
        reason = f"The metadata names {len(declared)} labels, but a row's output has the shape {shape}."
        raise ArtifactRejected("labels_mismatch", reason)
    return declared


def _task(classes: tuple[ClassName, ...] | None, outputs: Mapping[str, np.ndarray]) -> Task:
    if classes is not None:
        return "classification"
    values = list(outputs.values())
    is_number = len(values) == 1 and values[0].dtype.kind == "f" and values[0].shape[1:] in ((), (1,))
    return "regression" if is_number else "other"


RUNTIMES: Mapping[str, Runtime] = {name: TorchModel(name) for name in ("torch", "torchscript")}
