"""The two ways to an answer: direct, over this machine's pool, or queued, over a worker's.

A queued request leaves as a Celery message; its answer comes back over a Valkey list of its own, not through Celery's
result backend, whose pub/sub is not safe among the threads of a web process.
"""

import logging
import time
import uuid
from collections.abc import Mapping
from functools import cache
from typing import Any

import orjson
import redis
from celery import current_app
from django.conf import settings
from kombu.exceptions import OperationalError as BrokerError

from common import errors
from common.errors import PlatformError, TimedOut, Unavailable
from inference import predictions
from inference.routing import Route
from models_registry.models import ModelVersion
from tenants.scope import current_tenant

log = logging.getLogger(__name__)

REPLY_KEPT_S = 60
CLOCK_SKEW_S = 5.0  # how far the clocks of two machines may be apart
QUEUED_TASK = "inference.predict_queued"


@cache
def valkey() -> redis.Redis:
    """The process's client of Valkey; its pool is safe among threads."""
    # The client's own default of 5 s would break every longer wait for a reply.
    longest_wait_s = settings.PREDICTION_DEADLINE_S + 5
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=longest_wait_s, socket_connect_timeout=5)


def answer(route: Route, body: Mapping[str, Any], deadline: float) -> dict[str, Any]:
    """The answer to a predict body, over the lane that the deployment, the tenant or else the platform asks for."""
    lane = route.lane or current_tenant().lane or settings.PREDICTION_LANE
    if lane == "queue" or not settings.MODELS_SOCKET:
        return _queued(route, body, deadline)
    return predictions.predict(route.version, route.model_name, body, deadline)


def _queued(route: Route, body: Mapping[str, Any], deadline: float) -> dict[str, Any]:
    reply_key = f"tenantry:{current_tenant().uuid.hex}:reply:{uuid.uuid4().hex}"
    left_s = deadline - time.monotonic()
    message = {
        "tenant": str(current_tenant().uuid),
        "version_id": str(route.version.pk),
        "model_name": route.model_name,
        "body": orjson.dumps(body).decode(),
        "reply_key": reply_key,
        "answer_before": time.time() + left_s,
    }
    try:
        current_app.send_task(QUEUED_TASK, kwargs=message, expires=left_s, retry=False, ignore_result=True)
        reply = valkey().blpop([reply_key], timeout=max(left_s, 0.01))
    except (BrokerError, redis.RedisError, OSError) as error:
        raise Unavailable("The prediction queue cannot be reached; try again shortly.", retry_after_s=2) from error
    if reply is None:
        raise TimedOut("No worker answered before the deadline.")
    return _opened(reply[1])


def work_queued(*, version_id: str, model_name: str, body: str, reply_key: str, answer_before: float) -> None:
    """Answer one queued request, in a worker; one whose deadline has passed is dropped."""
    left_s = answer_before - time.time() + CLOCK_SKEW_S
    if left_s <= 0:
        return
    try:
        version = ModelVersion.objects.select_related("bundle").get(pk=version_id)
        reply = predictions.predict(version, model_name, orjson.loads(body), time.monotonic() + left_s)
    except ModelVersion.DoesNotExist:
        reply = _sealed(errors.NotFound("The version was deleted while the request waited."))
    except PlatformError as error:
        reply = _sealed(error)
    except Exception:  # a bug: its caller must not wait for an answer that never comes
        log.exception("queued_prediction_broke", extra={"version_id": version_id})
        reply = _sealed(Unavailable("Something broke on our side; the worker's log has it."))
    with valkey().pipeline() as pipeline:
        pipeline.rpush(reply_key, orjson.dumps(reply))
        pipeline.expire(reply_key, REPLY_KEPT_S)
        pipeline.execute()


def _sealed(error: PlatformError) -> dict[str, Any]:
    """An error as JSON values, so that it can cross the queue: of the kind that `common.errors` has for it."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return {
        "error_kind": kind.__name__,
        "code": error.code,
        "message": error.message,
        "fields": error.fields,
        "retry_after_s": error.retry_after_s,
    }


def _opened(reply: bytes | str) -> dict[str, Any]:
    """The answer in a reply, or the error that it carries, raised."""
    content: dict[str, Any] = orjson.loads(reply)
    if kind := content.pop("error_kind", None):
        raise getattr(errors, kind)(content.pop("message"), **content)
    return content
