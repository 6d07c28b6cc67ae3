"""scikit-learn estimators as ONNX, by skl2onnx and the conversions of this package: in float64 where it can be had."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

from onnx import ModelProto, NodeProto, TensorProto, helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

from runtimes.compilation import preparation, trees  # noqa: F401 (they register their conversions)
from runtimes.compilation.attempts import Attempt, NotCompilable
from runtimes.compilation.graph import OPSETS
from runtimes.compilation.knowledge import Knowledge, explore
from runtimes.formats.columns import last_step
from runtimes.formats.compiled import Feed, Labels, Plan
from runtimes.formats.outputs import PREDICTION
from runtimes.signature import STRING, Signature

Precision = Literal["float64", "float32"]
PRECISIONS: tuple[Precision, ...] = ("float64", "float32")
NUMBERS = {"float64": DoubleTensorType, "float32": FloatTensorType}
TABLE_RANK = 2


def attempts(predictor: Any, signature: Signature) -> Iterator[Attempt]:
    """Ways to compile the predictor's estimator, the most exact first."""
    model = predictor.model
    _have_convertible_settings(model)
    numbered: tuple[Labels, ...] = ("index", "value") if signature.classes is not None else ("",)
    for precision, feed, labels in itertools.product(PRECISIONS, _feeds(signature), numbered):
        yield partial(convert, model, signature, feed, precision, labels)


def convert(
    model: Any, signature: Signature, feed: Feed, precision: Precision, labels: Labels
) -> tuple[ModelProto, Plan]:
    """The graph of a fitted estimator, and how it is fed.

    Raises:
        NotCompilable: something in it has no conversion.
    """
    if _reads_text(model):
        raise NotCompilable("ONNX takes sentences apart otherwise than scikit-learn does")
    has_probabilities = bool(labels) and hasattr(model, "predict_proba")
    inputs, dtypes = _inputs(signature, feed, precision)
    graph = _converted(model, inputs, _options(labels, has_probabilities=has_probabilities))
    _keep_outputs(graph, 2 if has_probabilities else 1, labels)
    output = signature.outputs[0].name if signature.outputs else PREDICTION
    return graph, Plan(feed, dtypes, (output,), labels, has_probabilities)


def _reads_text(model: Any) -> bool:
    """Whether a vectorizer of text is among the model's steps."""
    steps = [step for _, step in getattr(model, "steps", [])]
    transformers = [part[1] for part in getattr(model, "transformers_", [])]
    return hasattr(model, "vocabulary_") or any(_reads_text(part) for part in (*steps, *transformers))


def _have_convertible_settings(model: Any) -> None:
    """Set what changes no prediction as skl2onnx wants it."""
    last = last_step(model)
    if getattr(last, "flatten_transform", False) is True:  # of a VotingClassifier: what its transform gives
        last.flatten_transform = False


def _feeds(signature: Signature) -> list[Feed]:
    if signature.layout == "tensor":
        return ["tensor"]
    is_text = {field.dtype == STRING for field in signature.inputs}
    return ["columns"] if len(is_text) == 2 else ["stacked", "columns"]


def _inputs(signature: Signature, feed: Feed, precision: Precision) -> tuple[list[Any], tuple[str, ...]]:
    """The graph's inputs as skl2onnx takes them, and their dtypes."""
    if any(field.dtype != STRING and field.dtype.startswith("uint64") for field in signature.inputs):
        raise NotCompilable("Its inputs may be too large for float64")
    dtypes = [STRING if field.dtype == STRING else precision for field in signature.inputs]
    if feed == "columns":
        named = zip(signature.inputs, dtypes, strict=True)
        return [(field.name, _type(dtype, 1)) for field, dtype in named], tuple(dtypes)
    first = signature.inputs[0]
    if feed == "tensor" and len(first.shape) != TABLE_RANK:
        raise NotCompilable("Its input is no table of rows and columns")
    width = len(dtypes) if feed == "stacked" else first.shape[1]
    return [(first.name, _type(dtypes[0], None if width < 1 else width))], (dtypes[0],)


def _type(dtype: str, width: int | None) -> Any:
    return StringTensorType([None, width]) if dtype == STRING else NUMBERS[dtype]([None, width])


def _converted(model: Any, inputs: list[Any], choices: list[dict[str, bool]]) -> ModelProto:
    """The graph by the first of several sets of options that the estimator's converter takes."""
    refusal: Exception | None = None
    for options in choices:
        given = {id(model): options, id(last_step(model)): options} if options else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                graph: ModelProto = convert_sklearn(model, initial_types=inputs, target_opset=OPSETS, options=given)
                return graph
        except (MissingConverter, MissingShapeCalculator) as error:
            raise NotCompilable(_missing(error)) from error
        except NotCompilable:
            raise
        except Exception as error:  # converters raise whatever they come across
            refusal = refusal if refusal and isinstance(error, NameError) else error  # NameError: an unknown option
    assert refusal is not None
    raise refusal


def _options(labels: Labels, *, has_probabilities: bool) -> list[dict[str, bool]]:
    """What to ask the converter for: class numbers or names, one table, and scores where there are no probabilities."""
    if not labels:
        return [{}]
    wishes = {"nocl": True} if labels == "index" else {}
    scores = (
        [] if has_probabilities else [{**wishes, "zipmap": False, "raw_scores": True}, {**wishes, "raw_scores": True}]
    )
    return [*scores, {**wishes, "zipmap": False}, wishes]


def _missing(error: Exception) -> str:
    """The type that skl2onnx has no conversion for, out of its long message."""
    kind = str(error).partition("<class '")[2].partition("'>")[0].rpartition(".")[2]
    return f"There is no conversion of {kind or 'one of its parts'} to ONNX"


def _keep_outputs(graph: ModelProto, count: int, labels: Labels) -> None:
    """Leave the first outputs only, each with the type it has: skl2onnx declares what it believes.

    Numbers become float64.
    """
    kept = list(graph.graph.output)[:count]
    del graph.graph.output[:]
    for place, output in enumerate(kept):
        kind = output.type.tensor_type.elem_type
        if place == 0 and labels == "index":
            output = helper.make_tensor_value_info(output.name, TensorProto.INT64, None)
        elif kind in (TensorProto.FLOAT, TensorProto.DOUBLE):
            name = f"{output.name}_float64"
            graph.graph.node.append(helper.make_node("Cast", [output.name], [name], to=TensorProto.DOUBLE))
            output = helper.make_tensor_value_info(name, TensorProto.DOUBLE, None)
        graph.graph.output.append(output)
    _drop_unused(graph)


def _drop_unused(graph: ModelProto) -> None:
    """Remove the nodes that no output needs."""
    needed = {output.name for output in graph.graph.output}
    used = []
    for node in reversed(graph.graph.node):  # in the order of computation, as ONNX asks
        if needed & set(node.output):
            used.append(node)
            needed |= set(node.input) | _names_within(node)
    del graph.graph.node[:]
    graph.graph.node.extend(reversed(used))


def _names_within(node: NodeProto) -> set[str]:
    """What the graphs inside a node take from outside."""
    inner = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return {name for graph in inner for one in graph.node for name in {*one.input, *_names_within(one)}}


def knowledge(predictor: Any, signature: Signature) -> Knowledge:
    """What the predictor's estimator knows of its inputs."""
    names = [field.name for field in signature.inputs]
    shape = signature.inputs[0].shape
    width = len(names) if signature.layout == "columns" else shape[1] if len(shape) == TABLE_RANK else 0
    return explore(predictor.model, names, max(width, 0))
