"""Sample rows for comparing two forms of a model: drawn from its signature, seeded, of several kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from runtimes import examples
from runtimes.compilation.knowledge import Knowledge, Splits
from runtimes.signature import STRING, Batch, Field, Signature

SEED = 20_240_229
ROWS_A_KIND = 200
THRESHOLDS = 300
EDGES = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-3, -1e-3, 1e-12, 255.0, 1e4, -1e4, 1e6, 16_777_217.0)
WORDS = ("a", "", "A", "unseen", "žluťoučký kůň", "0", "nan")
MOST_WHOLE = 2**52  # up to which float64 holds every whole number
TOKENS = 2  # of integers without known values: an embedding may have no more


@dataclass(frozen=True)
class Sample:
    """Rows of one kind, which the original may well refuse."""

    kind: str
    batch: Batch


class Sampler:
    """Makes samples for one signature."""

    def __init__(self, signature: Signature, known: Knowledge | None) -> None:
        """known: None for a network, whose whole numbers are tokens and whose inputs may be no tables."""
        self._signature, self._known = signature, known or Knowledge()
        self._random = np.random.default_rng(SEED)
        field = signature.inputs[0]
        is_rows = signature.layout == "tensor" and len(field.shape) == 2 and field.shape[1] > 0
        is_float = field.dtype.startswith("float")
        self._is_table = is_rows and is_float if known is None else is_rows or signature.layout == "columns"

    def samples(self, example: Batch | None) -> Iterator[Sample]:
        """The example first, then rows of every kind."""
        if example is not None:
            yield Sample("the input example", example)
        if not self._is_table:
            yield from self._tensors()
            return
        for kind, draw in self._draws().items():
            yield Sample(kind, self._batch(self._table(draw, ROWS_A_KIND)))
        for rows in self._known.rows[:2]:
            yield Sample("kept rows", self._batch(self._filled(rows)))
        yield from self._missing()
        yield from self._unseen()
        yield from self._at_thresholds()

    def _draws(self) -> dict[str, Callable[[int, int], np.ndarray]]:
        """Numbers by kind, each a function of the column's place and the number of rows."""
        random = self._random
        return {
            "normal": lambda place, rows: random.normal(size=rows),
            "uniform": lambda place, rows: random.uniform(-3, 3, rows),
            "wide": lambda place, rows: random.normal(size=rows) * 10.0 ** random.integers(-3, 4, rows),
            "whole": lambda place, rows: random.integers(-3, 12, rows).astype(float),
            "counts": lambda place, rows: random.poisson(20, rows).astype(float),
            "binary": lambda place, rows: random.integers(0, 2, rows).astype(float),
            "positive": lambda place, rows: random.lognormal(0, 1.5, rows),
            "edges": lambda place, rows: random.choice(np.array(EDGES), rows),
            "known": self._near_known,
        }

    def _near_known(self, place: int, rows: int) -> np.ndarray:
        """The column's known numbers, half of them with some noise; normals if there are none."""
        numbers = np.array(self._known.numbers.get(place, [0.0]))
        spread = float(numbers.std()) or 1.0
        noise = self._random.normal(size=rows) * spread * self._random.integers(0, 2, rows)
        return self._random.choice(numbers, rows) + noise

    def _table(self, draw: Callable[[int, int], np.ndarray], rows: int) -> np.ndarray:
        return np.stack([draw(place, rows) for place in range(self._width)], axis=1)

    @property
    def _width(self) -> int:
        is_tensor = self._signature.layout == "tensor"
        return int(self._signature.inputs[0].shape[1]) if is_tensor else len(self._signature.inputs)

    def _batch(self, table: np.ndarray) -> Batch:
        """The numbers as a batch of the signature; text columns get words instead."""
        if self._signature.layout == "tensor":
            return self._column(self._signature.inputs[0], 0, table)
        return {
            field.name: self._column(field, place, table[:, place])
            for place, field in enumerate(self._signature.inputs)
        }

    def _column(self, field: Field, place: int, numbers: np.ndarray) -> np.ndarray:
        if field.dtype == STRING:
            words: np.ndarray = np.array(self._known.words.get(place) or ["a"], dtype=object)
            return np.asarray(self._random.choice(words, numbers.shape))
        if np.dtype(field.dtype).kind in "iu":
            limits = np.iinfo(field.dtype)
            bounds = max(limits.min, -MOST_WHOLE), min(limits.max, MOST_WHOLE)
            whole: np.ndarray = np.clip(np.round(np.nan_to_num(numbers)), *bounds)
            return whole.astype(field.dtype)
        return numbers != 0 if field.dtype == "bool" else numbers.astype(field.dtype)

    def _filled(self, rows: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(rows), self._table(self._draws()["normal"], len(rows)), rows)

    def _missing(self) -> Iterator[Sample]:
        """Rows in which fields that may be missing are, each by a chance."""
        if not any(field.nullable for field in self._signature.inputs):
            return
        for share in (0.1, 0.5):
            batch = self._batch(self._table(self._near_known, ROWS_A_KIND))
            if isinstance(batch, dict):
                fields = [field for field in self._signature.inputs if field.nullable]
                yield Sample("missing", {**batch, **{one.name: self._holed(batch[one.name], share) for one in fields}})
            else:
                yield Sample("missing", self._holed(batch, share))

    def _holed(self, values: np.ndarray, share: float) -> np.ndarray:
        if values.dtype.kind not in "fO":
            return values
        holed = values.copy()
        holed[self._random.random(values.shape) < share] = None if values.dtype == object else np.nan
        return holed

    def _unseen(self) -> Iterator[Sample]:
        """For each text column, words that the model does not know, one in each row."""
        if self._signature.layout == "tensor":
            return
        for field in self._signature.inputs:
            if field.dtype == STRING:
                batch = self._batch(self._table(self._near_known, len(WORDS)))
                assert isinstance(batch, dict)
                yield Sample("unseen words", {**batch, field.name: np.array(WORDS, dtype=object)})

    def _at_thresholds(self) -> Iterator[Sample]:
        """Rows that reach a split of a tree and lie on its threshold, or one step beside it."""
        trees = [tree for tree in self._known.trees if len(tree.inner)]
        if not trees:
            return
        chosen = self._random.integers(0, len(trees), THRESHOLDS)
        base = self._table(self._near_known, THRESHOLDS)
        rows = [row for place, number in enumerate(chosen) for row in self._around(trees[number], base[place])]
        if rows:
            yield Sample("thresholds", self._batch(np.array(rows)))

    def _around(self, tree: Splits, base: np.ndarray) -> list[np.ndarray]:
        node = int(self._random.choice(tree.inner))
        known = tree.features[int(tree.feature[node])] if tree.features else None
        if known is None or not np.isfinite(tree.threshold[node]):
            return []
        row = _on_the_way(tree, node, base)
        at = float(known.undo(tree.threshold[node : node + 1])[0])
        return [_with(row, known.column, value) for value in neighbours(at)]

    def _tensors(self) -> Iterator[Sample]:
        """Batches for a model whose input is no table: several sizes, magnitudes and signs."""
        for rows, scale in ((1, 1.0), (7, 1.0), (64, 0.1), (64, 5.0), (128, 1.0)):
            sample = examples.sample_batch(self._signature, rows)
            if isinstance(sample, dict):
                yield Sample("normal", {name: self._noise(values, scale) for name, values in sample.items()})
            else:
                yield Sample("normal", self._noise(sample, scale))

    def _noise(self, values: np.ndarray, scale: float) -> np.ndarray:
        if values.dtype == object:
            return values
        if values.dtype.kind in "iub":
            return self._random.integers(0, TOKENS, values.shape).astype(values.dtype)
        return (self._random.normal(size=values.shape) * scale).astype(values.dtype)


def neighbours(value: float) -> Sequence[float]:
    """The number, the doubles beside it, and the float32s around it with the doubles beside their middle."""
    narrow = np.float32(value)
    beside = [np.nextafter(narrow, np.float32(way)) for way in (-np.inf, np.inf)]
    middles = [(float(narrow) + float(other)) / 2 for other in beside]
    exact = [value, float(narrow), *map(float, beside)]
    return [
        *exact,
        *(float(np.nextafter(one, way)) for one in [value, *middles] for way in (-np.inf, np.inf)),
        *middles,
    ]


def _on_the_way(tree: Splits, node: int, base: np.ndarray) -> np.ndarray:
    """The row, changed so that it reaches the node, as far as its features are columns."""
    low: dict[int, float] = {}
    high: dict[int, float] = {}
    while (above := int(tree.parent[node])) >= 0:
        feature, threshold = int(tree.feature[above]), float(tree.threshold[above])
        bounds, pick = (high, min) if tree.is_left[node] else (low, max)
        bounds[feature] = pick(bounds.get(feature, threshold), threshold)
        node = above
    row = base.copy()
    for feature in low.keys() | high.keys():
        known = tree.features[feature]
        value = _between(low.get(feature), high.get(feature))
        if known is not None and np.isfinite(value):
            row[known.column] = known.undo(np.array([value]))[0]
    return row


def _between(low: float | None, high: float | None) -> float:
    if low is not None and high is not None:
        return (low + high) / 2
    if low is not None:
        return low + max(1.0, abs(low))
    assert high is not None
    return high - max(1.0, abs(high))


def _with(row: np.ndarray, column: int, value: float) -> np.ndarray:
    changed = row.copy()
    changed[column] = value
    return changed
