"""Trees and ensembles of trees as ONNX, with the very comparisons and sums of scikit-learn.

scikit-learn's trees round an input to float32 and compare it with a float64 threshold; histogram boosting compares
float64 with float64. skl2onnx would narrow thresholds or weights to float32, follow no missing values in plain trees,
and take minutes for a large forest. Here a double threshold stands for each, moved to the last double that
scikit-learn sends to the left, so that no row takes another branch; leaves are summed in float64 and in the order
of the trees, so that the label is the label. ONNX Runtime rounds a sum to float32 when it hands it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper
from sklearn.ensemble._iforest import _average_path_length

from runtimes.compilation.attempts import NotCompilable
from runtimes.compilation.graph import CLASSIFIER_OPTIONS, ML, Graph, register

LOG_LINKS = frozenset({"LogLink"})
FORESTS = ("DecisionTree", "ExtraTree", "RandomForest", "ExtraTrees")


@dataclass(frozen=True)
class Tree:
    """One tree: where each node's rows go, and what its leaves add to which outputs.

    left, right: the number of the next node; a leaf points at itself. missing_left: where NaN goes.
    values: (nodes, targets) what a leaf adds. is_rounding: whether inputs are rounded to float32 first.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    is_leaf: np.ndarray
    values: np.ndarray
    is_rounding: bool


def plain_tree(tree: Any, values: np.ndarray) -> Tree:
    """A tree of sklearn.tree."""
    is_leaf = tree.children_left < 0
    missing = getattr(tree, "missing_go_to_left", np.zeros(tree.node_count))
    return Tree(
        feature=np.where(is_leaf, 0, tree.feature),
        threshold=np.where(is_leaf, 0.0, tree.threshold),
        left=np.where(is_leaf, 0, tree.children_left),
        right=np.where(is_leaf, 0, tree.children_right),
        missing_left=np.asarray(missing) != 0,
        is_leaf=is_leaf,
        values=values,
        is_rounding=True,
    )


def histogram_tree(predictor: Any) -> Tree:
    """A tree of histogram gradient boosting."""
    nodes = predictor.nodes
    is_leaf = nodes["is_leaf"] != 0
    if nodes["is_categorical"].any():
        raise NotCompilable("Splits over categories are not compiled")
    return Tree(
        feature=np.where(is_leaf, 0, nodes["feature_idx"]),
        threshold=np.where(is_leaf, 0.0, nodes["num_threshold"]),
        left=np.where(is_leaf, 0, nodes["left"]),
        right=np.where(is_leaf, 0, nodes["right"]),
        missing_left=nodes["missing_go_to_left"] != 0,
        is_leaf=is_leaf,
        values=nodes["value"].reshape(-1, 1),
        is_rounding=False,
    )


def last_left(threshold: np.ndarray) -> np.ndarray:
    """The last double that is not above the threshold once it is rounded to float32 (to even, at the half)."""
    below = threshold.astype(np.float32)
    below = np.where(below > threshold, np.nextafter(below, np.float32(-np.inf)), below)
    with np.errstate(over="ignore", invalid="ignore"):
        above = np.nextafter(below, np.float32(np.inf))
        middle = (below.astype(np.float64) + above.astype(np.float64)) / 2
    middle = np.where(np.isfinite(middle), middle, below.astype(np.float64))
    return np.where(middle.astype(np.float32) == below, middle, np.nextafter(middle, -np.inf))


def ensemble(
    graph: Graph, trees: Sequence[tuple[Tree, int]], targets: int, *, base: Any = None, labels: Any = None
) -> list[str]:
    """The sums of leaves for each target, as one float32 table; with labels, the label of the largest sum before.

    trees: each with the first target that its leaves add to. base: what every sum begins with.
    """
    is_classifier = labels is not None
    kind, leaf = ("TreeEnsembleClassifier", "class") if is_classifier else ("TreeEnsembleRegressor", "target")
    attributes = _nodes(trees, graph) | _leaves(trees, graph, leaf)
    if is_classifier:
        is_text = isinstance(labels[0], str)
        attributes["classlabels_strings" if is_text else "classlabels_int64s"] = list(labels)
    else:
        attributes["n_targets"] = targets
    if base is not None:
        attributes |= _numbers("base_values", np.asarray(base), graph)
    return graph.nodes(kind, graph.input(), 1 + is_classifier, domain=ML, post_transform="NONE", **attributes)


def _nodes(trees: Sequence[tuple[Tree, int]], graph: Graph) -> dict[str, Any]:
    def joined(parts: Iterable[np.ndarray]) -> list[int]:
        return [int(value) for value in np.concatenate(list(parts)).tolist()]

    only = [tree for tree, _ in trees]
    sizes = [len(tree.feature) for tree in only]
    modes = [b"LEAF" if is_leaf else b"BRANCH_LEQ" for tree in only for is_leaf in tree.is_leaf.tolist()]
    return {
        "nodes_treeids": joined(np.full(size, number) for number, size in enumerate(sizes)),
        "nodes_nodeids": joined(np.arange(size) for size in sizes),
        "nodes_featureids": joined(tree.feature for tree in only),
        "nodes_truenodeids": joined(tree.left for tree in only),
        "nodes_falsenodeids": joined(tree.right for tree in only),
        "nodes_missing_value_tracks_true": joined(tree.missing_left & ~tree.is_leaf for tree in only),
        "nodes_modes": modes,
        **_numbers("nodes_values", np.concatenate([_threshold(tree, graph) for tree in only]), graph),
    }


def _threshold(tree: Tree, graph: Graph) -> np.ndarray:
    """The thresholds in the graph's precision; in float32, the last number that goes left."""
    if graph.is_double:
        return last_left(tree.threshold) if tree.is_rounding else tree.threshold
    narrow = tree.threshold.astype(np.float32)
    return np.where(narrow > tree.threshold, np.nextafter(narrow, np.float32(-np.inf)), narrow)


def _leaves(trees: Sequence[tuple[Tree, int]], graph: Graph, kind: str) -> dict[str, Any]:
    ids: dict[str, list[int]] = {"treeids": [], "nodeids": [], "ids": []}
    weights = []
    for number, (tree, first) in enumerate(trees):
        leaves = np.flatnonzero(tree.is_leaf)
        targets = tree.values.shape[1]
        ids["treeids"] += [number] * (len(leaves) * targets)
        ids["nodeids"] += np.repeat(leaves, targets).tolist()
        ids["ids"] += np.tile(np.arange(first, first + targets), len(leaves)).tolist()
        weights.append(tree.values[leaves].ravel())
    numbered = {f"{kind}_{name}": values for name, values in ids.items()}
    return numbered | _numbers(f"{kind}_weights", np.concatenate(weights), graph)


def _numbers(name: str, values: np.ndarray, graph: Graph) -> dict[str, Any]:
    """An attribute of numbers: ONNX has a tensor for doubles, and a list for floats."""
    if graph.is_double:
        return {f"{name}_as_tensor": numpy_helper.from_array(values.astype(np.float64), name)}
    return {name: values.astype(np.float32)}


def _estimators(model: Any) -> list[Any]:
    return list(getattr(model, "estimators_", None) or [model])


def forest_classifier(graph: Graph) -> None:
    """One tree, or the mean of several: the label of the largest sum, and the sums as shares."""
    model = graph.model
    estimators = _estimators(model)
    if model.n_outputs_ != 1:
        raise NotCompilable("Trees with several targets are not compiled")
    labels = graph.labels()
    if len(labels) < 2:
        raise NotCompilable("A classifier with one class is not compiled")
    trees = [(plain_tree(one.tree_, one.tree_.value[:, 0, :]), 0) for one in estimators]
    if len(labels) == 2:
        trees.append((_third_class(), 2))
    label, sums = ensemble(graph, trees, len(labels), labels=_with_third(labels))
    graph.give(0, label)
    if len(labels) == 2:
        sums = graph.node("Slice", [sums, *(graph.constant([place], np.int64) for place in (0, 2, 1))])
    graph.give(1, graph.node("Div", [graph.cast(sums), graph.constant(len(estimators))]))


def _third_class() -> Tree:
    """A tree that gives a third class nothing: of two, ONNX Runtime takes the second one at a tie."""
    one, none = np.zeros(1, dtype=np.int64), np.zeros((1, 1))
    return Tree(one, none[0], one, one, one, one == 0, none, is_rounding=False)


def _with_third(labels: list[Any]) -> list[Any]:
    if len(labels) > 2:
        return labels
    return [*labels, "" if isinstance(labels[0], str) else -1]


def forest_regressor(graph: Graph) -> None:
    """One tree, or the mean of several."""
    estimators = _estimators(graph.model)
    trees = [(plain_tree(one.tree_, one.tree_.value[:, :, 0]), 0) for one in estimators]
    (sums,) = ensemble(graph, trees, int(graph.model.n_outputs_))
    graph.give(0, graph.node("Div", [graph.cast(sums), graph.constant(len(estimators))]))


def gradient_boosting_classifier(graph: Graph) -> None:
    """Boosted trees: the sums, and what the loss makes of them."""
    model = graph.model
    raw = _boosted_sums(graph)
    if raw_width(model) > 1:
        _give_classes(graph, graph.node("ArgMax", raw, axis=1, keepdims=0), graph.node("Softmax", raw, axis=1))
        return
    is_second = graph.node("GreaterOrEqual", [raw, graph.constant(0)])
    index = graph.node("Reshape", [graph.cast(is_second, TensorProto.INT64), graph.constant([-1], np.int64)])
    scale = 2 if model.loss == "exponential" else 1
    _give_classes(graph, index, _two_shares(graph, graph.node("Mul", [raw, graph.constant(scale)])))


def raw_width(model: Any) -> int:
    """How many sums gradient boosting makes."""
    return int(model.estimators_.shape[1])


def gradient_boosting_regressor(graph: Graph) -> None:
    """Boosted trees: the sum."""
    graph.give(0, _boosted_sums(graph))


def _boosted_sums(graph: Graph) -> str:
    model = graph.model
    if model.init is not None and not (isinstance(model.init, str) and model.init == "zero"):
        raise NotCompilable("Boosting that begins with an estimator of its own is not compiled")
    base = model._raw_predict_init(np.zeros((1, model.n_features_in_))).ravel()
    trees = [
        (plain_tree(one.tree_, one.tree_.value[:, :, 0] * model.learning_rate), place)
        for stage in model.estimators_
        for place, one in enumerate(stage)
    ]
    return graph.cast(ensemble(graph, trees, raw_width(model), base=base)[0])


def histogram_classifier(graph: Graph) -> None:
    """Histogram boosting: the sums, and what the loss makes of them."""
    raw, width = _histogram_sums(graph)
    shares = graph.node("Softmax", raw, axis=1) if width > 1 else _two_shares(graph, raw)
    _give_classes(graph, graph.node("ArgMax", shares, axis=1, keepdims=0), shares)


def histogram_regressor(graph: Graph) -> None:
    """Histogram boosting: the sum, or its exponential."""
    raw, _ = _histogram_sums(graph)
    is_log = type(graph.model._loss.link).__name__ in LOG_LINKS
    graph.give(0, graph.node("Exp", raw) if is_log else raw)


def _histogram_sums(graph: Graph) -> tuple[str, int]:
    model = graph.model
    if getattr(model, "_preprocessor", None) is not None:
        raise NotCompilable("Histogram boosting over categories is not compiled")
    width = int(model.n_trees_per_iteration_)
    trees = [(histogram_tree(one), place) for stage in model._predictors for place, one in enumerate(stage)]
    base = np.broadcast_to(np.ravel(model._baseline_prediction), (width,))
    return graph.cast(ensemble(graph, trees, width, base=base)[0]), width


def isolation_forest(graph: Graph) -> None:
    """An inlier (1) where the mean path is as long as the forest's offset asks for, an outlier (-1) where it is not.

    The path's length that the offset stands for is what the sum begins with: its sign is exact, whatever the rounding.
    """
    model = graph.model
    scale = len(model.estimators_) * float(_average_path_length([model._max_samples])[0])
    asked = -scale * np.log2(-model.offset_)
    members = zip(model.estimators_, model.estimators_features_, strict=True)
    trees = [(_path_tree(one.tree_, features), 0) for one, features in members]
    surplus = graph.cast(ensemble(graph, trees, 1, base=[-asked])[0])
    is_inlier = graph.cast(graph.node("GreaterOrEqual", [surplus, graph.constant(0)]), TensorProto.INT64)
    doubled = graph.node("Mul", [is_inlier, graph.constant(2, np.int64)])
    graph.give(0, graph.node("Sub", [doubled, graph.constant(1, np.int64)]))
    graph.give(1, surplus)


def _path_tree(tree: Any, features: np.ndarray) -> Tree:
    """A tree whose leaves give the length of the path to them, and on from there as if the tree had gone on."""
    lengths = np.asarray(tree.compute_node_depths(), dtype=np.float64)
    values = lengths + _average_path_length(tree.n_node_samples) - 1
    plain = plain_tree(tree, values.reshape(-1, 1))
    return replace(plain, feature=np.where(plain.is_leaf, 0, np.asarray(features)[plain.feature]))


def _two_shares(graph: Graph, raw: str) -> str:
    second = graph.node("Sigmoid", raw)
    return graph.node("Concat", [graph.node("Sub", [graph.constant(1), second]), second], axis=1)


def _give_classes(graph: Graph, index: str, shares: str) -> None:
    """The label by its index, and the table of probabilities."""
    labels = graph.labels()
    if labels != list(range(len(labels))):
        names = np.array(labels, dtype=object if isinstance(labels[0], str) else np.int64)
        index = graph.node("Gather", [graph.constant(names, names.dtype), index])
    graph.give(0, index)
    graph.give(1, shares)


register([f"{kind}Classifier" for kind in FORESTS], forest_classifier, options=CLASSIFIER_OPTIONS)
register([f"{kind}Regressor" for kind in FORESTS], forest_regressor)
register(["GradientBoostingClassifier"], gradient_boosting_classifier, options=CLASSIFIER_OPTIONS)
register(["GradientBoostingRegressor"], gradient_boosting_regressor)
register(["HistGradientBoostingClassifier"], histogram_classifier, options=CLASSIFIER_OPTIONS)
register(["HistGradientBoostingRegressor"], histogram_regressor)
register(["IsolationForest"], isolation_forest, options={"score_samples": [True, False]})
