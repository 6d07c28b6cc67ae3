"""What a fitted scikit-learn model knows of its inputs: words and numbers it was fitted on, and its trees' splits.

Sample rows are made from it, so that they meet the places at which the model's answer changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Undo = Callable[[np.ndarray], np.ndarray]
PARTS = ("estimators_", "estimator_", "best_estimator_", "calibrated_classifiers_", "estimator")
ROW_STORES = ("_fit_X", "support_vectors_", "X_train_", "cluster_centers_", "theta_", "means_")
MAX_STORED_ROWS = 200
MAX_NOTED_TREES, MAX_NOTED_SPLITS = 10, 50
MAX_DEPTH = 8


@dataclass(frozen=True)
class Feature:
    """A number inside the model that is one input column's, and how to get back from it."""

    column: int
    undo: Undo


Features = list[Feature | None]


@dataclass(frozen=True)
class Splits:
    """One tree's inner nodes over the model's inputs; features that are no input's are None.

    parent: the node above each node, and whether the node is to its left; the root's is -1.
    """

    features: tuple[Feature | None, ...]
    feature: np.ndarray
    threshold: np.ndarray
    inner: np.ndarray
    parent: np.ndarray
    is_left: np.ndarray


@dataclass
class Knowledge:
    """words, numbers: by the place of the input column. rows: some that the model keeps, in its inputs' own numbers."""

    words: defaultdict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    numbers: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    rows: list[np.ndarray] = field(default_factory=list)
    trees: list[Splits] = field(default_factory=list)


def explore(model: Any, names: Sequence[str], width: int) -> Knowledge:
    """What the model knows of its columns; what cannot be read off it is left out.

    names: of the columns, when they have some.
    """
    found = Knowledge()
    features: Features = [Feature(place, _same) for place in range(width)]
    try:
        _explore(model, features, list(names), found, MAX_DEPTH)
    except Exception:  # an artifact's attributes may be anything; samples are made without them then
        return found
    return found


def _same(values: np.ndarray) -> np.ndarray:
    return values


def _explore(model: Any, features: Features, names: list[str], found: Knowledge, depth: int) -> Features:
    """Note what a step knows, and say which of its outputs are inputs' numbers still."""
    if depth < 0 or model is None or isinstance(model, str):
        return features
    if hasattr(model, "steps"):
        for _, step in model.steps:
            features = _explore(step, features, names, found, depth - 1)
        return features
    if hasattr(model, "transformers_"):
        return _explore_columns(model, features, names, found, depth)
    _note(model, features, found)
    for part, chosen in _parts(model):
        _explore(part, features if chosen is None else [features[place] for place in chosen], names, found, depth - 1)
    return _after(model, features)


def _explore_columns(model: Any, features: Features, names: list[str], found: Knowledge, depth: int) -> Features:
    outputs: dict[int, Feature | None] = {}
    for name, transformer, chosen in model.transformers_:
        places = [features[place] for place in _chosen(chosen, names, len(features))]
        given = _explore(transformer, places, names, found, depth - 1)
        window = model.output_indices_.get(name, slice(0, 0))
        count = window.stop - window.start
        for offset in range(count):
            outputs[window.start + offset] = given[offset] if count == len(given) else None
    return [outputs.get(place) for place in range(max(outputs, default=-1) + 1)]


def _chosen(chosen: Any, names: list[str], width: int) -> list[int]:
    if isinstance(chosen, str):
        return [names.index(chosen)]
    if isinstance(chosen, slice):
        return list(range(width))[chosen]
    picked = list(np.atleast_1d(np.asarray(chosen, dtype=object)))
    if picked and all(isinstance(one, bool | np.bool_) for one in picked):
        return [place for place, is_in in enumerate(picked) if is_in]
    return [names.index(one) if isinstance(one, str) else int(one) for one in picked]


def _parts(model: Any) -> Iterator[tuple[Any, Sequence[int] | None]]:
    """The models inside a model that take its inputs, each with the features it sees if it does not see all."""
    if hasattr(model, "tree_") or hasattr(model, "_predictors"):
        return
    subsets = getattr(model, "estimators_features_", None)
    for name in PARTS:
        value = getattr(model, name, None)
        if value is None:
            continue
        parts = np.ravel(np.asarray(value, dtype=object)) if isinstance(value, list | np.ndarray) else [value]
        for place, part in enumerate(parts):
            yield part, subsets[place] if subsets is not None and name == "estimators_" else None
        return


def _note(model: Any, features: Features, found: Knowledge) -> None:
    for place, values in enumerate(getattr(model, "categories_", None) or []):
        known = features[place]
        for value in np.asarray(values, dtype=object).tolist() if known else []:
            _note_value(known, value, found)
    for name in ("mean_", "center_", "statistics_", "data_min_", "data_max_"):
        values = getattr(model, name, None)
        if isinstance(values, np.ndarray) and values.ndim == 1 and len(values) == len(features):
            _note_numbers(features, values, found)
            spread = getattr(model, "scale_", None)
            if name in ("mean_", "center_") and isinstance(spread, np.ndarray):
                _note_numbers(features, values + spread, found)
                _note_numbers(features, values - 2 * spread, found)
    _note_rows(model, features, found)
    if hasattr(model, "tree_"):
        _note_tree(_splits_of_tree(model.tree_, features), found)
    for stage in getattr(model, "_predictors", None) or []:
        for one in stage:
            _note_tree(_splits_of_histogram(one.nodes, features), found)


def _note_tree(tree: Splits, found: Knowledge) -> None:
    """Note a tree, and some of its thresholds as numbers of their columns."""
    found.trees.append(tree)
    for node in tree.inner[:MAX_NOTED_SPLITS] if len(found.trees) <= MAX_NOTED_TREES else ():
        known = tree.features[int(tree.feature[node])]
        if known is not None:
            _note_value(known, float(known.undo(tree.threshold[node : node + 1])[0]), found)


def _note_value(feature: Feature | None, value: Any, found: Knowledge) -> None:
    if feature is None:
        return
    if isinstance(value, str):
        found.words[feature.column].append(value)
    elif isinstance(value, int | float) and np.isfinite(value):
        found.numbers[feature.column].append(float(value))


def _note_numbers(features: Features, values: np.ndarray, found: Knowledge) -> None:
    for known, value in zip(features, values.tolist(), strict=True):
        if known is not None and isinstance(value, float):
            _note_value(known, float(known.undo(np.array([value]))[0]), found)
        else:
            _note_value(known, value, found)


def _note_rows(model: Any, features: Features, found: Knowledge) -> None:
    """Rows that a model keeps, such as its neighbours and support vectors."""
    for name in ROW_STORES:
        rows = getattr(model, name, None)
        if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind != "f":
            continue
        if rows.shape[1] == len(features) and all(one is not None for one in features):
            some = rows[:: max(1, len(rows) // MAX_STORED_ROWS)][:MAX_STORED_ROWS].astype(np.float64)
            table = np.full_like(some, np.nan)
            for place, known in enumerate(features):
                if known is not None:
                    table[:, known.column] = known.undo(some[:, place])
            found.rows.append(table)


def _after(model: Any, features: Features) -> Features:
    """The features behind a transformer that handles each column alone; none behind any other."""
    kind = type(model).__name__
    if kind == "SimpleImputer" and not model.add_indicator and _keeps_width(model, features):
        return features
    if kind in ("StandardScaler", "RobustScaler", "MaxAbsScaler", "MinMaxScaler"):
        return [_behind(model, known, place) for place, known in enumerate(features)]
    return []


def _keeps_width(model: Any, features: Features) -> bool:
    statistics = np.asarray(model.statistics_)
    is_kept = statistics.dtype == object or not np.isnan(statistics.astype(np.float64)).any()
    return is_kept and len(statistics) == len(features)


def _behind(scaler: Any, known: Feature | None, place: int) -> Feature | None:
    if known is None:
        return None

    def undo(values: np.ndarray) -> np.ndarray:
        table = np.zeros((len(values), scaler.n_features_in_))
        table[:, place] = values
        return known.undo(scaler.inverse_transform(table)[:, place])

    return Feature(known.column, undo)


def _splits_of_tree(tree: Any, features: Features) -> Splits:
    left, right = np.asarray(tree.children_left), np.asarray(tree.children_right)
    return _splits(np.asarray(tree.feature), np.asarray(tree.threshold), left, right, left >= 0, features)


def _splits_of_histogram(nodes: Any, features: Features) -> Splits:
    inner = nodes["is_leaf"] == 0
    left, right = (nodes[name].astype(np.int64) for name in ("left", "right"))
    return _splits(nodes["feature_idx"], nodes["num_threshold"], left, right, inner, features)


def _splits(
    feature: np.ndarray,
    threshold: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    is_inner: np.ndarray,
    features: Features,
) -> Splits:
    inner = np.flatnonzero(is_inner)
    parent = np.full(len(feature), -1)
    is_left = np.zeros(len(feature), dtype=bool)
    parent[left[inner]] = inner
    parent[right[inner]] = inner
    is_left[left[inner]] = True
    return Splits(tuple(features), feature, threshold, inner, parent, is_left)
