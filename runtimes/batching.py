"""Requests that wait together, predicted as one batch: load makes a model faster, and nobody waits for a timer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtimes.protocol import Prediction
from runtimes.signature import Batch


class Unsplittable(Exception):
    """A prediction of several requests does not have one row for each of theirs."""


def rows_of(batch: Batch) -> int:
    """How many rows a batch has."""
    return len(next(iter(batch.values()))) if isinstance(batch, dict) else len(batch)


def join(batches: Sequence[Batch]) -> Batch:
    """One batch with the rows of all, which are of one kind."""
    first = batches[0]
    if isinstance(first, dict):
        return {name: np.concatenate([batch[name] for batch in batches]) for name in first}
    return np.concatenate(batches)  # type: ignore[arg-type]


def split(prediction: Prediction, sizes: Sequence[int]) -> list[Prediction]:
    """The prediction of each request.

    Raises:
        Unsplittable: an array does not have one row for each row asked.
    """
    tables = [*prediction.outputs.values(), *([] if prediction.probabilities is None else [prediction.probabilities])]
    if any(array.shape[:1] != (sum(sizes),) for array in tables):
        raise Unsplittable
    ends = np.cumsum(sizes).tolist()
    return [_part(prediction, slice(end - size, end)) for end, size in zip(ends, sizes, strict=True)]


def _part(prediction: Prediction, rows: slice) -> Prediction:
    outputs = {name: values[rows] for name, values in prediction.outputs.items()}
    table = prediction.probabilities
    return Prediction(outputs, None if table is None else table[rows])
