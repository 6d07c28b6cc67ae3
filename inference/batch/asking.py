"""Asking a version for a chunk's rows: what it cannot predict is found row by row, and what may pass is tried again."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from django.conf import settings

from common.errors import Invalid, TimedOut, Unavailable
from inference import predictions
from inference.served import Served
from runtimes.batching import join, rows_of
from runtimes.errors import RunnerDied
from runtimes.protocol import Prediction
from runtimes.signature import Batch
from runtimes.tabulation import Answered, Chunk

TRIES = 5
PAUSE_S = 0.5
DEATHS = 2  # of a runner over the same rows, each asked by two runners in turn, before the rows are at fault
SEARCHES_OF_A_DEATH = 5  # as many others would take its time
MOST_SEARCHES = 200  # calls of a chunk that may fail, before all that is left is said to have the same fault
FAULT_CHARS = 300
Found = list[tuple[int, Prediction]]


class Asker:
    """One version, asked for one chunk after the other. is_over: whether nobody wants the answers any more."""

    def __init__(self, version: Served, *, probabilities: bool, is_over: Callable[[], bool]) -> None:
        self._version, self._probabilities, self._is_over = version, probabilities, is_over
        self._most_rows = 1 << 30

    def answer(self, chunk: Chunk) -> Answered:
        """The predictions of the chunk's rows, and the faults of those that have none.

        Raises:
            Unavailable: the version could not be asked, however often it was tried.
            Invalid: its answers do not fit each other.
        """
        if chunk.batch is None:
            return Answered.of(None, {})
        found: Found = []
        faults: dict[int, str] = {}
        self._searches_left = MOST_SEARCHES
        self._search(chunk.batch, 0, found, faults)
        return Answered.of(_joined([prediction for _, prediction in found]), dict(sorted(faults.items())))

    def _search(self, batch: Batch, first: int, found: Found, faults: dict[int, str]) -> None:
        """Predict the rows together; where that fails, each half alone, down to the rows at fault."""
        rows = rows_of(batch)
        if rows > self._most_rows:
            return self._halve(batch, first, found, faults)
        try:
            found.append((first, self._ask(batch)))
        except (Invalid, TimedOut) as error:
            if isinstance(error, TimedOut):
                self._most_rows = max(1, rows // 2)
            self._searches_left -= SEARCHES_OF_A_DEATH if error.code == RunnerDied.code else 1
            if rows > 1 and self._searches_left > 0:
                return self._halve(batch, first, found, faults)
            faults.update(dict.fromkeys(range(first, first + rows), error.message[:FAULT_CHARS]))
        return None

    def _halve(self, batch: Batch, first: int, found: Found, faults: dict[int, str]) -> None:
        half = rows_of(batch) // 2
        self._search(_cut(batch, slice(0, half)), first, found, faults)
        self._search(_cut(batch, slice(half, None)), first + half, found, faults)

    def _ask(self, batch: Batch) -> Prediction:
        deaths = 0
        for attempt in range(1, TRIES + 1):
            deadline = time.monotonic() + settings.PREDICTION_DEADLINE_S
            try:
                return self._checked(
                    predictions.predict_batch(
                        self._version, batch, probabilities=self._probabilities, deadline=deadline
                    )
                )
            except Unavailable as error:  # the model host or the runner went away, or there is no room; they come back
                deaths += error.code == RunnerDied.code
                if deaths == DEATHS:
                    raise Invalid("The model's process ended while it predicted this row.", code=error.code) from error
                if attempt == TRIES or self._is_over():
                    raise
                time.sleep(PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def _checked(self, prediction: Prediction) -> Prediction:
        """The prediction, if it has every output of the signature: each is a column of the result."""
        for field in self._version.signature.outputs:
            if field.name not in prediction.outputs:
                raise Invalid(f"The model gave no '{field.name[:FAULT_CHARS]}' for this row.", code="model_error")
        return prediction


def _cut(batch: Batch, rows: slice) -> Batch:
    return {name: column[rows] for name, column in batch.items()} if isinstance(batch, dict) else batch[rows]


def _joined(parts: list[Prediction]) -> Prediction | None:
    """One prediction with the rows of all, in their order."""
    if len(parts) <= 1:
        return parts[0] if parts else None
    try:
        outputs: dict[str, Any] = join([part.outputs for part in parts])  # type: ignore[assignment]
        tables = [part.probabilities for part in parts if part.probabilities is not None]
        return Prediction(outputs, np.concatenate(tables) if tables else None)
    except (KeyError, ValueError) as error:
        raise Invalid("The model's answers to parts of the table have other names or shapes.") from error
