"""Predicting with one version through this machine's pool."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson

from common.errors import Conflict, Invalid, PlatformError, TimedOut, Unavailable
from common.requests import new_id
from inference.decoding import decode
from inference.pool import model_pool
from inference.served import Served
from runtimes import errors as faults
from runtimes.client import Prediction
from runtimes.signature import Batch

MOST_VALUES_ANSWERED = 4_000_000  # each is some twenty bytes of JSON


def predict(version: Served, model_name: str, body: Mapping[str, Any], deadline: float) -> dict[str, Any]:
    """The answer to a predict body by this version, as JSON values and numpy arrays, over this machine's pool.

    deadline: on `time.monotonic()`'s clock.

    Raises:
        Invalid: the rows are not what the model takes, or the model raised on them.
        Unavailable, TimedOut: no answer now.
    """
    batch = decode(body, version.signature).batch
    prediction = predict_batch(version, batch, probabilities=bool(body.get("probabilities")), deadline=deadline)
    return answer_body(prediction, version, model_name)


def predict_batch(version: Served, batch: Batch, *, probabilities: bool, deadline: float) -> Prediction:
    """The prediction of a batch that fits the version's signature, over this machine's pool."""
    try:
        runner = model_pool().get_or_set(version.pool_key, version.load_request, deadline_s=_left(deadline))
        return runner.predict(batch, probabilities=probabilities, deadline_s=_left(deadline))
    except faults.RuntimeFault as fault:
        raise error_of(fault) from fault


def deadline_of(body: Mapping[str, Any], longest_s: float) -> float:
    """When the answer must be there, on `time.monotonic()`'s clock: `deadline_ms` from now, or the longest allowed.

    body: checked by `bodies.parse`, so `deadline_ms` is a number if it is there.

    Raises:
        Invalid: `deadline_ms` is not above zero.
    """
    asked: float | None = body.get("deadline_ms")
    if asked is None:
        return time.monotonic() + longest_s
    if asked <= 0:
        raise Invalid("deadline_ms is a number of milliseconds above zero.", fields={"deadline_ms": str(asked)[:40]})
    return time.monotonic() + min(asked / 1000, longest_s)


@contextmanager
def faults_as_errors() -> Iterator[None]:
    """Turn what runtimes raise into errors that the caller of the platform can act on."""
    try:
        yield
    except faults.RuntimeFault as fault:
        raise error_of(fault) from fault


def error_of(fault: faults.RuntimeFault) -> PlatformError:
    """The error that tells a caller of the platform what a runtime raised."""
    match fault:
        case faults.DeadlineExceeded():
            return TimedOut("The model did not answer before the deadline.")
        case faults.ModelError():
            return Invalid(f"The model could not predict these rows: {fault.message}", code="model_error")
        case faults.ArtifactRejected():
            return Conflict(f"This version cannot be loaded: {fault.reason}", code=fault.code)
        case faults.HostUnavailable() | faults.PoolFull() | faults.RunnerDied():
            return Unavailable(f"{fault.message} Try again shortly.", code=fault.code, retry_after_s=1)
        case _:
            return Unavailable(fault.message, code=fault.code)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimedOut("The deadline passed before the model was asked.")
    return left


def checked_size(*arrays: np.ndarray) -> None:
    """Go on only where the arrays are few enough values to be written out one by one.

    Raises:
        Invalid: they are more.
    """
    if (values := sum([array.size for array in arrays])) > MOST_VALUES_ANSWERED:
        raise Invalid(
            f"The model answered {values:,} values, and an answer in JSON has at most {MOST_VALUES_ANSWERED:,}; "
            "send fewer rows at once, or make it a batch job.",
            code="answer_too_large",
        )


def answer_body(prediction: Prediction, version: Served, model_name: str) -> dict[str, Any]:
    """The answer to a predict body, as JSON values and numpy arrays.

    Raises:
        Invalid: it is too large for one.
    """
    outputs = prediction.outputs
    checked_size(*outputs.values())
    answer: dict[str, Any] = {
        "id": new_id(),
        "model": model_name,
        "version": version.number,
        "predictions": next(iter(outputs.values())) if len(outputs) == 1 else outputs,
    }
    if prediction.probabilities is not None:
        checked_size(prediction.probabilities)
        answer["probabilities"] = prediction.probabilities
        answer["classes"] = list(version.signature.classes) if version.signature.classes else None
    return answer


def encoded(answer: Mapping[str, Any]) -> bytes:
    """An answer as JSON, in which what is no finite number is null."""
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY, default=_values)


def _values(array: Any) -> Any:
    """What orjson takes for an array that it cannot write itself, such as one of texts."""
    if isinstance(array, np.ndarray):
        return array.tolist()
    raise TypeError(type(array))
