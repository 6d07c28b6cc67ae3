"""The inputs of a fitted scikit-learn estimator, read off its attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from runtimes.errors import plain
from runtimes.protocol import Predictor
from runtimes.signature import STRING, Batch, Field

MAX_PROBED_COLUMNS = 200
INPUT_NAME = "input"


@dataclass(frozen=True)
class Inferred:
    """What an estimator says about its inputs; texts: a known word for each string column."""

    layout: Literal["tensor", "columns"]
    inputs: tuple[Field, ...]
    texts: Mapping[str, str]

    @property
    def layout_and_inputs(self) -> tuple[Literal["tensor", "columns"], tuple[Field, ...]]:
        """The first two parts, as a Signature takes them."""
        return self.layout, self.inputs


def infer(model: Any) -> Inferred | None:
    """The named columns or the width that the estimator was fitted with; None when it does not say."""
    names = _attribute(model, "feature_names_in_")
    if isinstance(names, np.ndarray) and all(isinstance(name, str) for name in names):
        texts = _string_columns(model)
        fields = tuple(Field(name, STRING if name in texts else "float64", (-1,)) for name in names.tolist())
        return Inferred("columns", fields, texts)
    width = _attribute(model, "n_features_in_")
    if isinstance(width, int | np.integer) and width > 0:
        return Inferred("tensor", (Field(INPUT_NAME, "float64", (-1, int(width))),), {})
    return None


def last_step(model: Any) -> Any:
    """The estimator at the end of a pipeline, or the model itself."""
    steps = getattr(model, "steps", None)
    if isinstance(steps, list) and steps and isinstance(steps[-1], tuple) and steps[-1][-1] is not None:
        return steps[-1][-1]
    return model


def nullable_fields(predictor: Predictor, inputs: tuple[Field, ...], sample: Batch) -> tuple[Field, ...]:
    """The fields, each marked nullable if the model predicts a row in which it is missing."""
    if not isinstance(sample, dict):
        field = inputs[0]
        is_float = sample.dtype.kind == "f"
        return (replace(field, nullable=is_float and _survives(predictor, np.full_like(sample, np.nan))),)
    if len(inputs) > MAX_PROBED_COLUMNS:
        missing = {name: _missing(column) if _may_lack(column) else column for name, column in sample.items()}
        survives = _survives(predictor, missing)
        return tuple(replace(field, nullable=survives and _may_lack(sample[field.name])) for field in inputs)
    return tuple(
        replace(field, nullable=_may_lack(sample[field.name]) and _survives(predictor, _without(sample, field.name)))
        for field in inputs
    )


def _may_lack(column: np.ndarray) -> bool:
    """Whether the column's dtype has a missing value at all."""
    return column.dtype.kind in "Of"


def _without(sample: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {**sample, name: _missing(sample[name])}


def _missing(column: np.ndarray) -> np.ndarray:
    if column.dtype == object:
        return np.full(column.shape, None, dtype=object)
    return np.full(column.shape, np.nan, dtype=column.dtype)


def _survives(predictor: Predictor, batch: Batch) -> bool:
    try:
        predictor.predict(batch, probabilities=False)
    except Exception:  # whatever the model raises says that it takes no missing value
        return False
    return True


def _attribute(model: Any, name: str) -> Any:
    try:
        return getattr(model, name, None)
    except Exception:  # a property of an unfitted or foreign object may raise anything
        return None


def _string_columns(model: Any) -> dict[str, str]:
    """The columns that the model's own encoders saw as text, each with one word they know."""
    texts: dict[str, str] = {}
    for transformer, names in _fitted_transformers(model):
        for step in _steps(transformer):
            texts.update(_texts_of(step, names))
    return texts


def _fitted_transformers(model: Any) -> Iterator[tuple[Any, list[str]]]:
    for step in _steps(model):
        fitted = getattr(step, "transformers_", None)
        if isinstance(fitted, list):
            all_names = [str(name) for name in getattr(step, "feature_names_in_", ())]
            for _, transformer, chosen in fitted:
                yield transformer, _names(chosen, all_names)
        else:
            yield step, [str(name) for name in getattr(model, "feature_names_in_", ())]


def _steps(model: Any) -> list[Any]:
    steps = getattr(model, "steps", None)
    return [step[-1] for step in steps] if isinstance(steps, list) else [model]


def _names(chosen: Any, all_names: list[str]) -> list[str]:
    if isinstance(chosen, str):
        return [chosen]
    if isinstance(chosen, slice):
        return all_names[chosen] if not isinstance(chosen.start, str) else []
    picked = list(chosen)
    if picked and all(isinstance(item, bool | np.bool_) for item in picked):
        return [name for name, is_in in zip(all_names, picked, strict=False) if is_in]
    return [item if isinstance(item, str) else all_names[item] for item in picked]


def _texts_of(step: Any, names: list[str]) -> dict[str, str]:
    categories = getattr(step, "categories_", None)
    if isinstance(categories, list) and len(categories) == len(names):
        words = {name: _word(values) for name, values in zip(names, categories, strict=True)}
        return {name: word for name, word in words.items() if word is not None}
    if hasattr(step, "vocabulary_"):
        return dict.fromkeys(names, "a")
    statistics = getattr(step, "statistics_", None)
    if isinstance(statistics, np.ndarray) and statistics.dtype == object and len(statistics) == len(names):
        return {name: plain(v, 80) for name, v in zip(names, statistics, strict=True) if isinstance(v, str)}
    return {}


def _word(values: Any) -> str | None:
    return next((value for value in np.asarray(values).tolist() if isinstance(value, str)), None)
