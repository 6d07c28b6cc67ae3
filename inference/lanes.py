"""The two ways to an answer: direct, over this machine's pool, or queued, over a worker's."""

import time
from collections.abc import Mapping
from typing import Any

from django.conf import settings

from common.errors import PlatformError
from common.http import status_of
from inference import predictions, shadow
from inference.costs import costs
from inference.counting import OK, Series, counts
from inference.courtesy import courtesy
from inference.decoding import Decoded, decode
from inference.queued.outbox import Destination, outbox
from inference.queued.queues import queue_of
from inference.queued.wire import Request
from inference.routing import Route
from inference.sampling import samples
from runtimes.protocol import Prediction
from tenants.scope import current_tenant

DIRECT, QUEUE, AUTO = "direct", "queue", "auto"
BROKEN = 500


def answer(route: Route, body: Mapping[str, Any], deadline: float) -> dict[str, Any]:
    """The answer to a predict body, as JSON values and numpy arrays.

    It comes over the lane that the deployment, the tenant or else the platform asks for.

    deadline: on `time.monotonic()`'s clock.

    Raises:
        Invalid: the rows are not what the model takes, or the model raised on them.
        Unavailable, TimedOut: no answer now.
    """
    decoded = decode(body, route.version.signature)
    prediction = predict(route, decoded, probabilities=bool(body.get("probabilities")), deadline=deadline)
    return predictions.answer_body(prediction, route.version, route.model_name)


def predict(route: Route, decoded: Decoded, *, probabilities: bool, deadline: float) -> Prediction:
    """The prediction of a checked batch by the route's version, over its lane; its shadow is asked afterwards."""
    if route.shadow is None:
        return _predict(route, decoded, probabilities=probabilities, deadline=deadline)
    started = time.monotonic()
    prediction = _predict(route, decoded, probabilities=probabilities, deadline=deadline)
    shadow.watch(route, decoded, prediction, time.monotonic() - started, _predict_uncounted)
    return prediction


def _predict_uncounted(route: Route, decoded: Decoded, *, probabilities: bool, deadline: float) -> Prediction:
    """For a shadow, whose requests nobody has made."""
    ask = _queued if lane_of(route, decoded) == QUEUE else _direct
    return ask(route, decoded, probabilities=probabilities, deadline=deadline)


def _predict(route: Route, decoded: Decoded, *, probabilities: bool, deadline: float) -> Prediction:
    lane, started, status, whose = lane_of(route, decoded), time.monotonic(), BROKEN, current_tenant().schema_name
    ask = _queued if lane == QUEUE else _direct
    try:
        with courtesy().turn(whose):
            prediction = ask(route, decoded, probabilities=probabilities, deadline=deadline)
        status = OK
        samples.note(whose, route.version, decoded.batch, started)
    except PlatformError as error:
        status = status_of(error)
        raise
    finally:
        series = Series(whose, route.model_name, lane, status)
        counts.note(series, decoded.row_count, time.monotonic() - started)
    return prediction


def _direct(route: Route, decoded: Decoded, *, probabilities: bool, deadline: float) -> Prediction:
    started = time.monotonic()
    prediction = predictions.predict_batch(route.version, decoded.batch, probabilities=probabilities, deadline=deadline)
    costs().note(route.version.pk, time.monotonic() - started)
    return prediction


def lane_of(route: Route, decoded: Decoded) -> str:
    """`direct` or `queue`: what the deployment says, else the tenant, else the platform.

    `auto` goes by size and by what the version's predictions took lately. A machine without a model host has only the
    queue.
    """
    if not settings.MODELS_SOCKET:
        return QUEUE
    said = route.lane or current_tenant().lane or settings.PREDICTION_LANE
    if said != AUTO:
        return said
    return QUEUE if costs().is_heavy(route.version.pk, decoded.batch) else DIRECT


def _queued(route: Route, decoded: Decoded, *, probabilities: bool, deadline: float) -> Prediction:
    tenant, version = current_tenant(), route.version
    to = Destination(
        tenant=str(tenant.uuid),
        version_id=str(version.pk),
        pool_key=version.pool_key,
        queue=queue_of(tenant.uuid.hex, route.model_name),
    )
    answer_before = time.time() + deadline - time.monotonic()
    request = Request.of(decoded.batch, probabilities=probabilities, answer_before=answer_before)
    prediction, took_s = outbox().ask(to, request, deadline)
    costs().note(version.pk, took_s)
    return prediction
