"""One way to compile, tried: the graph against the original, on the same sample rows and on a clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from runtimes import batching
from runtimes.compilation.comparison import Differs, difference
from runtimes.compilation.sampling import Sample
from runtimes.errors import describe
from runtimes.protocol import Prediction, Predictor
from runtimes.signature import Batch

CALLS = 5
SLOW_CALL_SECONDS = 0.05
SLOWER = 1.5  # a compiled form that takes more than so many times as long is of no use


@dataclass(frozen=True)
class Reference:
    """What the original answered to one sample; None when it refused it."""

    sample: Sample
    prediction: Prediction | None


@dataclass(frozen=True)
class Outcome:
    """How a compiled form compares: the largest difference, over how many rows, and seconds for one row."""

    max_difference: float
    rows: int
    one_row_seconds: float


def references(
    original: Predictor, samples: Iterable[Sample], deadline: float, *, probabilities: bool
) -> list[Reference]:
    """The original's answers, as many as there is time for (of time.monotonic())."""
    found = []
    for sample in samples:
        found.append(Reference(sample, _asked(original, sample.batch, probabilities=probabilities)))
        if time.monotonic() > deadline:
            break
    return found


def _asked(predictor: Predictor, batch: Batch, *, probabilities: bool) -> Prediction | None:
    try:
        return predictor.predict(batch, probabilities=probabilities)
    except Exception:  # a sample may well be what the model does not take
        return None


def compare(
    compiled: Predictor, references: Sequence[Reference], original_seconds: float, *, probabilities: bool
) -> Outcome:
    """How the compiled form does.

    Raises:
        Differs: it answers otherwise, fails where the original answers, answers what it refuses, or is slower.
    """
    largest, rows = 0.0, 0
    for reference in references:
        batch = reference.sample.batch
        if reference.prediction is None:
            if _asked(compiled, batch, probabilities=probabilities) is not None:
                raise Differs(f"The compiled form predicts rows that the original refuses ({reference.sample.kind})")
            continue
        try:
            answer = compiled.predict(batch, probabilities=probabilities)
        except Exception as error:
            raise Differs(f"The compiled form fails at sample rows ({describe(error, 200)})") from error
        largest = max(largest, difference(reference.prediction, answer))
        rows += batching.rows_of(batch)
    if not rows:
        raise Differs("The original predicts none of the sample rows, so there is nothing to compare")
    batch = next(one.sample.batch for one in references if one.prediction is not None)
    seconds = one_row_seconds(compiled, batch, probabilities=probabilities)
    if seconds > SLOWER * original_seconds:
        raise Differs(f"The compiled form is {seconds / original_seconds:.0f} times as slow at one row")
    return Outcome(largest, rows, seconds)


def one_row_seconds(predictor: Predictor, batch: Batch, *, probabilities: bool) -> float:
    """The time of one call with the first row, the best of a few."""
    row = {name: values[:1] for name, values in batch.items()} if isinstance(batch, dict) else batch[:1]
    return min(_timings(lambda: predictor.predict(row, probabilities=probabilities)))


def _timings(call: Callable[[], object]) -> Iterator[float]:
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        seconds = time.perf_counter() - started
        yield seconds
        if seconds > SLOW_CALL_SECONDS:
            return
