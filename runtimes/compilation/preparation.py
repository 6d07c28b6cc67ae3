"""Scalers, imputers and encoders as ONNX, in float64 and in scikit-learn's own order of operations.

skl2onnx would narrow statistics to float32, divide by multiplying with a reciprocal, and know no missing strings.
An encoder becomes a table with a row for each category, made by asking the fitted encoder itself; so whatever it does
with dropped, rare and unknown categories, the table does too. A category that it refuses is refused: its row is
beyond the table's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto
from skl2onnx.common.data_types import StringTensorType

from runtimes.compilation.attempts import NotCompilable
from runtimes.compilation.graph import ML, Graph, register, table_of
from runtimes.formats.compiled import MISSING_TEXT

UNSEEN_TEXT = "\ue000unseen\ue000"
UNSEEN_NUMBER = 8.25e17


def standard_scaler(graph: Graph) -> None:
    """Less the mean, over the deviation."""
    model = graph.model
    _shift_and_divide(graph, model.mean_ if model.with_mean else None, model.scale_ if model.with_std else None)


def robust_scaler(graph: Graph) -> None:
    """Less the median, over the range between quantiles."""
    model = graph.model
    _shift_and_divide(
        graph, model.center_ if model.with_centering else None, model.scale_ if model.with_scaling else None
    )


def max_abs_scaler(graph: Graph) -> None:
    """Over the largest magnitude."""
    if getattr(graph.model, "clip", False):
        raise NotCompilable("MaxAbsScaler that clips is not compiled")
    _shift_and_divide(graph, None, graph.model.scale_)


def _shift_and_divide(graph: Graph, shift: np.ndarray | None, scale: np.ndarray | None) -> None:
    name = graph.input()
    if shift is not None:
        name = graph.node("Sub", [name, graph.constant(shift)])
    if scale is not None:
        name = graph.node("Div", [name, graph.constant(scale)])
    graph.give(0, name)


def min_max_scaler(graph: Graph) -> None:
    """Times the scale, plus the least; clipped if the scaler clips."""
    model = graph.model
    scaled = graph.node("Mul", [graph.input(), graph.constant(model.scale_)])
    name = graph.node("Add", [scaled, graph.constant(model.min_)])
    if model.clip:
        name = graph.node("Clip", [name, *(graph.constant(bound) for bound in model.feature_range)])
    graph.give(0, name)


def simple_imputer(graph: Graph) -> None:
    """Each missing value as its column's statistic."""
    model = graph.model
    if model.add_indicator:
        raise NotCompilable("An imputer that adds indicators is not compiled")
    statistics = np.asarray(model.statistics_)
    table, is_missing = graph.input(), _is_missing(graph, model.missing_values)
    if graph.is_text:
        filler = graph.constant([[str(value) for value in statistics.tolist()]], object)
        graph.give(0, graph.node("Where", [is_missing, filler, table]))
        return
    numbers = statistics.astype(np.float64)
    filled = graph.node("Where", [is_missing, graph.constant(numbers.reshape(1, -1)), table])
    kept = np.flatnonzero(~np.isnan(numbers))  # a column that was empty when it was fitted is left out
    graph.give(0, filled if len(kept) == len(numbers) else graph.node("Gather", [filled, _places(graph, kept)], axis=1))


def _is_missing(graph: Graph, marker: Any) -> str:
    table = graph.input()
    is_absent = marker is None or marker != marker  # None, NaN or pandas.NA
    if graph.is_text:
        return graph.node("Equal", [table, graph.constant([[MISSING_TEXT if is_absent else str(marker)]], object)])
    return graph.node("IsNaN", table) if is_absent else graph.node("Equal", [table, graph.constant(marker)])


def _places(graph: Graph, places: int | Sequence[int] | np.ndarray) -> str:
    return graph.constant(places, np.int64)


def imputer_shape(operator: Any) -> None:
    """Strings stay strings, numbers numbers."""
    if isinstance(operator.inputs[0].type, StringTensorType):
        operator.outputs[0].type = StringTensorType([None, len(operator.raw_operator.statistics_)])
    else:
        table_of(operator)


def encoder(graph: Graph) -> None:
    """Each column's category as the numbers that the encoder gives for it."""
    encoded = [_encoded_column(graph, place) for place in range(len(graph.model.categories_))]
    graph.give(0, encoded[0] if len(encoded) == 1 else graph.node("Concat", encoded, axis=1))


def _encoded_column(graph: Graph, place: int) -> str:
    table = _table_of_column(graph.model, place)
    categories = graph.model.categories_[place].tolist()
    unknown = len(categories) + (0 if len(table) > len(categories) else 1)  # beyond the end: asking for it fails
    index = _index_of_text(graph, place, categories, unknown) if graph.is_text else None
    if index is None:
        index = _index_of_number(graph, place, categories, unknown)
    return graph.node("Gather", [graph.constant(table), index], axis=0)


def _table_of_column(model: Any, place: int) -> np.ndarray:
    """What the encoder gives for each category of one column, and then, unless it refuses it, for an unknown one."""
    categories = model.categories_[place].tolist()
    is_text = any(isinstance(value, str) for value in categories)
    others = [values[0] for values in model.categories_]
    asked = [*categories, UNSEEN_TEXT if is_text else UNSEEN_NUMBER]
    rows = np.empty((len(asked), len(others)), dtype=object)
    for row, value in enumerate(asked):
        rows[row] = others
        rows[row, place] = value
    if model.handle_unknown == "error":
        rows = rows[:-1]
    if not any(isinstance(value, str) for value in others):
        rows = rows.astype(np.float64)
    outputs = model.transform(rows)
    outputs = np.asarray(outputs.toarray() if hasattr(outputs, "toarray") else outputs, dtype=np.float64)
    widths = getattr(model, "_n_features_outs", [1] * len(others))  # of an OneHotEncoder
    first = int(sum(widths[:place]))
    return outputs[:, first : first + int(widths[place])]


def _index_of_text(graph: Graph, place: int, categories: list[Any], unknown: int) -> str:
    names = [value if isinstance(value, str) else MISSING_TEXT for value in categories]
    if len(set(names)) < len(names):
        raise NotCompilable("An encoder with several kinds of missing values is not compiled")
    column = graph.node("Reshape", [graph.column(graph.input(), place), _places(graph, [-1])])
    numbers = list(range(len(names)))
    return graph.node(
        "LabelEncoder", column, domain=ML, keys_strings=names, values_int64s=numbers, default_int64=unknown
    )


def _index_of_number(graph: Graph, place: int, categories: list[Any], unknown: int) -> str:
    numbers = np.array([np.nan if value is None else value for value in categories], dtype=np.float64)
    column = graph.column(graph.input(), place)
    is_equal = graph.node("Equal", [column, graph.constant(numbers.reshape(1, -1))])
    if np.isnan(numbers).any():
        is_nan_place = graph.constant(np.isnan(numbers).reshape(1, -1), np.bool_)
        is_equal = graph.node("Or", [is_equal, graph.node("And", [graph.node("IsNaN", column), is_nan_place])])
    hits = graph.cast(is_equal, TensorProto.INT64)
    best = graph.node("ArgMax", hits, axis=1, keepdims=0)
    is_known = graph.node("ReduceMax", [hits, _places(graph, [1])], keepdims=0)
    return graph.node("Where", [graph.cast(is_known, TensorProto.BOOL), best, _places(graph, unknown)])


register(["Scaler"], standard_scaler, table_of, {"div": ["std", "div", "div_cast"]})
register(["RobustScaler"], robust_scaler, table_of, {"div": ["std", "div", "div_cast"]})
register(["MaxAbsScaler"], max_abs_scaler, table_of, {"div": ["std", "div", "div_cast"]})
register(["MinMaxScaler"], min_max_scaler, table_of)
register(["SimpleImputer"], simple_imputer, imputer_shape)
register(["OneHotEncoder", "OrdinalEncoder"], encoder, table_of)
