"""Predicting with one version through this machine's pool."""

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from common.errors import Conflict, Invalid, PlatformError, TimedOut, Unavailable
from inference.decoding import decode
from inference.pool import model_pool
from models_registry.loading import load_request, pool_key
from models_registry.models import ModelVersion
from runtimes import errors as faults
from runtimes.client import Prediction
from runtimes.signature import Batch, Signature
from tenants.scope import current_tenant


def predict(version: ModelVersion, model_name: str, body: Mapping[str, Any], deadline: float) -> dict[str, Any]:
    """The answer to a predict body by this version, as JSON values and numpy arrays, over this machine's pool.

    deadline: on `time.monotonic()`'s clock.

    Raises:
        Invalid: the rows are not what the model takes, or the model raised on them.
        Unavailable, TimedOut: no answer now.
    """
    signature = Signature.from_json(version.signature)
    batch = decode(body, signature).batch
    prediction = predict_batch(version, batch, probabilities=bool(body.get("probabilities")), deadline=deadline)
    return answer_body(prediction, signature, model_name, version.number)


def predict_batch(version: ModelVersion, batch: Batch, *, probabilities: bool, deadline: float) -> Prediction:
    """The prediction of a batch that fits the version's signature, over this machine's pool."""
    with faults_as_errors():
        key = pool_key(current_tenant(), version)
        runner = model_pool().get_or_set(key, lambda: load_request(version), deadline_s=_left(deadline))
        return runner.predict(batch, probabilities=probabilities, deadline_s=_left(deadline))


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


def answer_body(prediction: Prediction, signature: Signature, model_name: str, number: int) -> dict[str, Any]:
    """The answer to a predict body, as JSON values."""
    outputs = {name: values.tolist() for name, values in prediction.outputs.items()}
    answer: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "model": model_name,
        "version": number,
        "predictions": next(iter(outputs.values())) if len(outputs) == 1 else outputs,
    }
    if prediction.probabilities is not None:
        answer["probabilities"] = prediction.probabilities.tolist()
        answer["classes"] = list(signature.classes) if signature.classes else None
    return answer
