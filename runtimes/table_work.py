"""Work on tables seen from the client: profiles, and measuring a model's predictions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from runtimes import arrays
from runtimes.errors import ProtocolFault
from runtimes.fits import Progress, evaluation_of
from runtimes.limits import Limits
from runtimes.measured import Evaluation
from runtimes.messages import Frame
from runtimes.profiles import Profile
from runtimes.protocol import Prediction
from runtimes.signature import Batch
from runtimes.work import Client, Work, checked

MOST_ROWS = 100_000
PREDICTION, PROBABILITIES = "prediction", "probabilities"


@dataclass(frozen=True)
class Score:
    """What was measured, and what it took."""

    evaluation: Evaluation
    duration_s: float
    peak_memory_bytes: int
    libraries: dict[str, str]


def profile(client: Client, format_name: str, dataset_fd: int, limits: Limits) -> Profile:
    """The profile of a table, checked."""
    request = {"op": "profile", "format": format_name, "limits": limits.to_json()}
    with Work(client, request, dataset_fd, lambda: False) as work:
        for _ in work.frames():
            pass
        result, _ = work.result, work.usage()
    try:
        return Profile.model_validate(result)
    except ValidationError as error:
        raise ProtocolFault("A runner's profile is not what it must be.") from error


def score(
    client: Client,
    order: Mapping[str, Any],
    dataset_fd: int,
    predict: Callable[[Batch], Prediction],
    limits: Limits,
    on_progress: Callable[[Progress], None],
    is_cancelled: Callable[[], bool],
) -> Score:
    """Answer each batch of rows that comes out of the table with its predictions, until all are measured."""
    started = time.monotonic()
    request = {"op": "score", **order, "limits": limits.to_json()}
    with Work(client, request, dataset_fd, is_cancelled) as work:
        for frame in work.frames():
            done = frame.header.get("done")
            on_progress(Progress(50.0, f"{done} rows" if isinstance(done, int) else "predicting"))
            entries, buffers = arrays.encode(_answers(predict, frame))
            work.answer({"arrays": entries}, buffers)
        result, usage = work.result, work.usage()
    with checked():
        return Score(
            evaluation=evaluation_of(result["evaluation"]),
            duration_s=time.monotonic() - started,
            peak_memory_bytes=int(usage["peak_bytes"]),
            libraries=dict(usage["libraries"]),
        )


def _answers(predict: Callable[[Batch], Prediction], frame: Frame) -> dict[str, Any]:
    """The first output and the probabilities, under the names that the other side knows."""
    prediction = predict(arrays.decode_batch(frame.header, frame.body, max_rows=MOST_ROWS))
    found = {PREDICTION: next(iter(prediction.outputs.values()))}
    return found if prediction.probabilities is None else found | {PROBABILITIES: prediction.probabilities}
