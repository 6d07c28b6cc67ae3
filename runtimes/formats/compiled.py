"""The compiled form of a model: an ONNX graph that answers as the original does, with the original's signature.

What the graph takes and gives is told by a plan that the compilation wrote into it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import onnxruntime
from onnx import ModelProto

from runtimes.errors import ArtifactRejected, plain
from runtimes.formats.outputs import PREDICTION, ClassTable, text_or_numbers
from runtimes.protocol import Prediction
from runtimes.signature import STRING, Batch, Field, Signature

MISSING_TEXT = "\ue000missing\ue000"  # ONNX strings cannot be missing
PLAN_NAME = "tenantry.plan"
Feed = Literal["tensor", "stacked", "columns"]
Labels = Literal["index", "value", ""]


@dataclass(frozen=True)
class Plan:
    """How a batch becomes the graph's inputs, and the graph's outputs a prediction.

    feed: "tensor", the batch as it is; "stacked", its columns side by side; "columns", one (n, 1) input a column.
    dtypes: of the graph's inputs, in the order of the signature's, or the one of all columns.
    outputs: the names of what it gives, in the graph's order; probabilities, if there are any, come last.
    labels: "index" if its first output numbers the classes, "value" if it names them, "" if it is no label.
    ends_in_sigmoid: of scores that are to become classes, whether one score is a probability already.
    """

    feed: Feed
    dtypes: tuple[str, ...]
    outputs: tuple[str, ...]
    labels: Labels = ""
    has_probabilities: bool = False
    makes_classes: bool = False
    ends_in_sigmoid: bool = False

    def write(self, model: ModelProto) -> None:
        """Keep the plan in the model."""
        model.metadata_props.add(key=PLAN_NAME, value=json.dumps(asdict(self)))

    @classmethod
    def read(cls, session: Any) -> Plan:
        """The plan in a loaded model.

        Raises:
            ArtifactRejected: it has none.
        """
        try:
            values = json.loads(session.get_modelmeta().custom_metadata_map.get(PLAN_NAME, ""))
            known: dict[str, Any] = {field.name: values[field.name] for field in fields(cls)}
            return cls(**known | {name: tuple(known[name]) for name in ("dtypes", "outputs")})
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactRejected("unreadable_artifact", "The compiled form does not say how it is fed.") from error


def session_of(data: bytes) -> Any:
    """An ONNX Runtime session on one thread, that keeps no memory between calls.

    Raises:
        ArtifactRejected: ONNX Runtime cannot load the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False  # it never gives back what one large batch took
    options.enable_mem_pattern = False  # it keeps one for every size of batch
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except MemoryError:
        raise
    except Exception as error:
        raise ArtifactRejected("unreadable_artifact", f"ONNX Runtime cannot load it ({plain(error, 300)}).") from error


class CompiledPredictor:
    """A compiled graph that predicts what its original predicts."""

    is_batchable = True

    def __init__(self, session: Any, plan: Plan, signature: Signature) -> None:
        self._run, self._plan, self._signature = session.run, plan, signature
        self._names = [entry.name for entry in session.get_outputs()]
        self._feed = _feeder(plan, session.get_inputs(), signature.inputs)
        classes = signature.classes
        self._classes = text_or_numbers(list(classes), (len(classes),)) if classes else None
        self._table = None
        if classes and plan.makes_classes:
            self._table = ClassTable(classes, ends_in_sigmoid=plan.ends_in_sigmoid)

    def predict(self, batch: Batch, *, probabilities: bool) -> Prediction:
        """Predict every row of a batch that fits the signature."""
        values = self._run(self._names, self._feed(batch))
        if self._table is not None:
            return self._table.prediction(
                dict(zip(self._plan.outputs, values, strict=False)), probabilities=probabilities
            )
        if probabilities and not self._plan.has_probabilities:
            raise ValueError("the model has no probabilities")
        table = values[-1] if probabilities else None
        if self._plan.labels:
            return Prediction({PREDICTION: self._labels(values[0])}, table)
        return Prediction(self._numbers(values), table)

    def _labels(self, values: np.ndarray) -> np.ndarray:
        labels = values.reshape(-1)
        if self._plan.labels == "index" and self._classes is not None:
            return np.asarray(self._classes[labels])
        return labels

    def _numbers(self, values: list[np.ndarray]) -> dict[str, np.ndarray]:
        declared = {field.name: field for field in self._signature.outputs}
        given = zip(self._plan.outputs, values, strict=False)
        return {name: _as_declared(value, declared.get(name)) for name, value in given}


def _as_declared(values: np.ndarray, field: Field | None) -> np.ndarray:
    """The values in the dtype and rank that the original gives: a converter makes (n, 1) of (n,)."""
    if field is None:
        return values
    if values.ndim == 2 and len(field.shape) == 1 and values.shape[1] == 1:
        values = values.reshape(-1)
    return values if field.dtype == STRING else values.astype(field.dtype, copy=False)


def _feeder(plan: Plan, entries: list[Any], inputs: tuple[Field, ...]) -> Callable[[Any], Mapping[str, np.ndarray]]:
    """What makes the graph's inputs of a batch; chosen once, since it runs for every call."""
    if plan.feed == "columns":
        dtypes = dict(zip((field.name for field in inputs), map(_dtype, plan.dtypes), strict=True))
        flat = [(entry.name, dtypes[entry.name]) for entry in entries if len(entry.shape) == 1]
        tall = [(entry.name, dtypes[entry.name]) for entry in entries if len(entry.shape) != 1]
        return lambda batch: {
            **{name: _cells(batch[name], dtype) for name, dtype in flat},
            **{name: _cells(batch[name], dtype).reshape(-1, 1) for name, dtype in tall},
        }
    name, dtype = entries[0].name, _dtype(plan.dtypes[0])
    if plan.feed == "stacked":
        order = [field.name for field in inputs]
        return lambda batch: {name: _stacked([batch[one] for one in order], dtype)}
    return lambda batch: {name: _cells(batch, dtype)}


def _dtype(name: str) -> np.dtype[Any] | None:
    """The dtype of numbers; None for text."""
    return None if name == STRING else np.dtype(name)


def _cells(array: np.ndarray, dtype: np.dtype[Any] | None) -> np.ndarray:
    if dtype is None:
        return _texts(array)
    return array if array.dtype == dtype and array.flags.c_contiguous else np.ascontiguousarray(array, dtype)


def _texts(array: np.ndarray) -> np.ndarray:
    """The strings, with a word of its own for those that are missing."""
    values = np.empty(array.size, dtype=object)
    values[:] = [MISSING_TEXT if value is None else value for value in array.ravel().tolist()]
    return values.reshape(array.shape)


def _stacked(columns: list[np.ndarray], dtype: np.dtype[Any] | None) -> np.ndarray:
    if dtype is None:
        return np.stack([_texts(column) for column in columns], axis=1)
    table = np.empty((len(columns[0]), len(columns)), dtype)
    for place, column in enumerate(columns):
        table[:, place] = column
    return table
