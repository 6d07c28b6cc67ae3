"""ONNX models, served by ONNX Runtime on one CPU thread."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto

from runtimes import examples
from runtimes.errors import ArtifactRejected, plain
from runtimes.formats import onnx_detector
from runtimes.formats.compiled import CompiledPredictor, Plan, session_of
from runtimes.formats.detector import findings_of, proved
from runtimes.formats.onnx_detector import OnnxDetector
from runtimes.formats.onnx_vetting import vet
from runtimes.formats.outputs import PREDICTION, ClassTable, named_arrays, plain_array, prove
from runtimes.protocol import Findings, OnStage, Prediction, Runtime, Source, Task
from runtimes.signature import STRING, Batch, ClassName, Field, Signature

SAMPLE_ROWS = 2
ELEMENT_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    "tensor(string)": STRING,
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}
CLASS_ATTRIBUTES = ("classlabels_ints", "classlabels_int64s", "classlabels_strings", "keys_int64s", "keys_strings")
LABEL_OUTPUTS = re.compile(r"(output_)?label", re.IGNORECASE)


class OnnxModel(Runtime):
    """An ONNX file."""

    name = "onnx"
    library_set = "sklearn"

    def load(self, source: Source) -> OnnxPredictor | CompiledPredictor | OnnxDetector:
        """A session over the vetted graph, ready to predict by the declared signature, or a detector as declared."""
        data = source.bundle.read(source.path)
        if (declared := onnx_detector.declared_in(source.options)) is not None:
            vet(data, onnx_detector.OPERATORS)
            return OnnxDetector(data, declared)
        signature = Signature.from_json(source.options["signature"])
        if source.options.get("is_compiled"):  # by a runner of this platform, so that there is no graph to be refused
            session = session_of(data)
            return CompiledPredictor(session, Plan.read(session), signature)
        vet(data)
        return OnnxPredictor(session_of(data), signature)

    def inspect(self, source: Source, on_stage: OnStage) -> Findings:
        """What the graph takes and gives, proved by predicting sample rows."""
        on_stage("loading")
        started = time.monotonic()
        data = source.bundle.read(source.path)
        if (declared := onnx_detector.declared_in(source.options)) is not None:
            made_with = _made_with(vet(data, onnx_detector.OPERATORS))
            detector = OnnxDetector(data, declared)
            on_stage("looking at a made-up page")
            proved(detector, declared.labels)
            return findings_of(self.name, "ONNX detector", declared.labels, started, made_with)
        model = vet(data)
        session = session_of(data)
        seconds = time.monotonic() - started
        on_stage("predicting a sample")
        signature, task = _find_signature(session, model, source.options)
        return Findings(self.name, task, signature, "ONNX graph", _made_with(model), [], seconds)


def _made_with(model: ModelProto) -> dict[str, str]:
    if not model.producer_name:
        return {}
    return {plain(model.producer_name, 80): plain(model.producer_version or "unknown", 40)}


class OnnxPredictor:
    """A session fed with one tensor, or with one for each named input."""

    is_batchable = True

    def __init__(self, session: Any, signature: Signature) -> None:
        self._session, self._signature = session, signature
        fields = {field.name: field for field in signature.inputs}
        entries = session.get_inputs()
        self._is_columns = signature.layout == "columns"
        self._inputs = [
            (entry.name, fields.get(entry.name, signature.inputs[0]), len(entry.shape))
            for entry in (entries if self._is_columns else entries[:1])
        ]
        self._outputs = [entry.name for entry in session.get_outputs()]
        self._label_place = _label_place(session)
        is_scored = self._label_place is None
        self._table = ClassTable(signature.classes) if signature.classes and is_scored else None

    def predict(self, batch: Batch, *, probabilities: bool) -> Prediction:
        """Predict every row; a classifier's label and table, if the graph has both, are told apart."""
        values = self._session.run(self._outputs, self._feed(batch))
        if self._label_place is not None:
            return self._labelled(values, self._label_place, probabilities=probabilities)
        if len(values) == 1:
            outputs = named_arrays(values[0], self._outputs[0])
        else:
            outputs = {name: plain_array(value) for name, value in zip(self._outputs, values, strict=True)}
        if self._table is not None:
            return self._table.prediction(outputs, probabilities=probabilities)
        if probabilities:
            raise ValueError("the model has no classes, so it has no probabilities")
        return Prediction(outputs)

    def _feed(self, batch: Batch) -> dict[str, np.ndarray]:
        if not isinstance(batch, dict):
            name, field, _ = self._inputs[0]
            return {name: _for_session(batch, field, batch.ndim)}
        return {name: _for_session(batch[name], field, rank) for name, field, rank in self._inputs}

    def _labelled(self, values: list[Any], place: int, *, probabilities: bool) -> Prediction:
        label, table = values[place], values[1 - place]
        outputs = {PREDICTION: plain_array(label).reshape(len(label))}
        return Prediction(outputs, _table(table, self._signature.classes) if probabilities else None)


def _for_session(array: np.ndarray, field: Field, rank: int) -> np.ndarray:
    """The array in the field's dtype; a column becomes the (n, 1) tensor that converters ask for."""
    if field.dtype == STRING:
        array = np.array(["" if value is None else value for value in array.ravel().tolist()], dtype=object).reshape(
            array.shape
        )
    else:
        array = np.ascontiguousarray(array, dtype=field.dtype)
    return array.reshape(-1, 1) if array.ndim == 1 and rank == 2 else array


def _table(value: Any, classes: tuple[ClassName, ...] | None) -> np.ndarray:
    """(n, classes) probabilities, from an array or from the list of maps that ZipMap makes."""
    if isinstance(value, list):
        names = classes or (tuple(value[0]) if value else ())
        return np.array([[row[name] for name in names] for row in value], dtype=np.float64).reshape(-1, len(names))
    return np.asarray(value, dtype=np.float64)


def _label_place(session: Any) -> int | None:
    """Which output holds a classifier's labels, when another holds its probabilities."""
    outputs = session.get_outputs()
    if len(outputs) != 2:
        return None
    for place, (output, other) in enumerate([(outputs[0], outputs[1]), (outputs[1], outputs[0])]):
        is_label = output.type in ("tensor(int64)", "tensor(string)") and LABEL_OUTPUTS.search(output.name)
        if is_label and (other.type.startswith("seq(map") or other.type in ("tensor(float)", "tensor(double)")):
            return place
    return None


def _find_signature(session: Any, model: ModelProto, options: Mapping[str, Any]) -> tuple[Signature, Task]:
    draft, sample, is_declared = _inputs(session, options)
    classes = _classes(session, model, draft, options)
    untyped = OnnxPredictor(session, Signature(draft.layout, draft.inputs, ()))
    told = "the inputs that the graph names"
    prediction = prove(untyped, sample, told, probabilities=False, is_declared=is_declared)
    if classes is not None and _label_place(session) is None:
        scores = next(iter(prediction.outputs.values()))
        if not ClassTable.fits(scores, len(classes)):
            reason = (
                f"The metadata names {len(classes)} labels, but a row's output has the shape {list(scores.shape[1:])}."
            )
            raise ArtifactRejected("labels_mismatch", reason)
    known = Signature(draft.layout, draft.inputs, (), classes)
    outputs = OnnxPredictor(session, known).predict(sample, probabilities=classes is not None).outputs
    fields = tuple(examples.field_of(name, values) for name, values in outputs.items())
    return Signature(draft.layout, draft.inputs, fields, classes), _task(classes, outputs)


def _inputs(session: Any, options: Mapping[str, Any]) -> tuple[Signature, Batch, bool]:
    """A draft with the input fields, a sample batch, and whether somebody declared them."""
    example = options.get("input_example")
    batch = examples.batch_from_example(example) if example is not None else None
    is_declared = bool(options.get("signature"))
    draft = Signature.from_json(options["signature"]) if is_declared else _graph_inputs(session)
    fits = batch is not None and isinstance(batch, dict) == (draft.layout == "columns")
    sample = examples.cast(batch, draft) if batch is not None and fits else examples.sample_batch(draft, SAMPLE_ROWS)
    return draft, sample, is_declared


def _graph_inputs(session: Any) -> Signature:
    entries = session.get_inputs()
    fields = tuple(_field(entry, is_only=len(entries) == 1) for entry in entries)
    return Signature("tensor" if len(fields) == 1 else "columns", fields, ())


def _field(entry: Any, *, is_only: bool) -> Field:
    dtype = ELEMENT_TYPES.get(entry.type)
    if dtype is None or not entry.shape:
        raise ArtifactRejected("signature_needed", f"The input {plain(entry.name, 80)!r} has no rows, or an odd type.")
    sizes = tuple(size if isinstance(size, int) and size > 0 else -1 for size in entry.shape[1:])
    if not is_only and sizes == (1,):
        sizes = ()
    return Field(plain(entry.name, 200), dtype, (-1, *sizes))


def _classes(
    session: Any, model: ModelProto, draft: Signature, options: Mapping[str, Any]
) -> tuple[ClassName, ...] | None:
    """The class names: declared, or those that the graph's classifier carries."""
    if _label_place(session) is None:
        return tuple(options.get("labels") or draft.classes or ()) or None
    for node in reversed(model.graph.node):
        for attribute in node.attribute:
            if attribute.name in CLASS_ATTRIBUTES and (found := _values(attribute)):
                return found
    return draft.classes


def _values(attribute: AttributeProto) -> tuple[ClassName, ...]:
    if attribute.ints:
        return tuple(int(value) for value in attribute.ints)
    return tuple(value.decode(errors="replace") for value in attribute.strings)


def _task(classes: tuple[ClassName, ...] | None, outputs: Mapping[str, np.ndarray]) -> Task:
    if classes is not None or PREDICTION in outputs:
        return "classification"
    values = list(outputs.values())
    is_number = len(values) == 1 and values[0].dtype.kind == "f" and values[0].shape[1:] in ((), (1,))
    return "regression" if is_number else "other"


RUNTIMES: Mapping[str, Runtime] = {"onnx": OnnxModel()}
