"""What a worker does with a message of the queue lane: predict its requests together, and send back each one's answer.

No query while the version is in memory: versions never change, so their id is enough.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import redis
from django.conf import settings

from common.errors import NotFound, PlatformError, TimedOut, Unavailable
from inference.pool import model_pool
from inference.predictions import error_of, faults_as_errors
from inference.queued import wire
from inference.queued.hand import Hand, reply
from inference.queued.outbox import CLOCK_SKEW_S
from inference.queued.turns import Turns
from inference.queued.wire import Answer, Message, Request
from models_registry.loading import load_request
from models_registry.models import ModelVersion
from runtimes.client import LoadRequest, Question, Runner
from runtimes.errors import ModelError
from runtimes.protocol import Prediction
from tenants.models import Tenant
from tenants.scope import shared_scope, tenant_scope

log = logging.getLogger(__name__)

TELL_AGAIN_S = 0.5
MOST_TELLS = 6


@cache
def _turns() -> Turns:
    return Turns(max(1, settings.INFERENCE_THREADS // 2))


@cache
def _hand() -> Hand:
    return Hand()


def work_on(values: Mapping[str, Any]) -> None:
    """Answer the message in a task's keyword arguments; one that is done, or too late, is dropped."""
    try:
        message = Message.of_values(values)
    except wire.OtherProtocol as error:
        _refuse(values, error)
        return
    _turns().take(message.tenant, partial(_answer, message))


def _answer(message: Message) -> None:
    in_time = [one for one in message.requests if _left_s(one) > 0]
    if not in_time:
        return
    with _hand().holding(message) as is_ours:
        if is_ours:
            started = time.monotonic()
            predicted = dict(zip(map(id, in_time), _predicted(message, in_time), strict=True))
            answers = [predicted.get(id(one)) or wire.expired() for one in message.requests]
            _tell(message, wire.pack_reply(message.message_id, answers, time.monotonic() - started))


def _predicted(message: Message, requests: Sequence[Request]) -> Sequence[Answer]:
    """An answer for each request; a fault that is none of theirs is everybody's."""
    try:
        with faults_as_errors():
            return _predict(message, requests)
    except PlatformError as error:
        return [error] * len(requests)
    except Exception:  # a bug: nobody must wait for an answer that never comes
        log.exception("queued_prediction_broke", extra={"version_id": message.version_id})
        return [Unavailable("Something broke on our side; the worker's log has it.")] * len(requests)


def _predict(message: Message, requests: Sequence[Request]) -> Sequence[Answer]:
    deadline = time.monotonic() + max(map(_left_s, requests))
    runner = model_pool().get_or_set(message.pool_key, partial(_load, message), deadline_s=_time_to(deadline))
    questions = [Question(one.batch(), one.probabilities) for one in requests]
    try:
        answers = runner.predict_together(questions, deadline_s=_time_to(deadline))
    except ModelError:  # one of them is over a limit: each alone tells which
        return [_alone(runner, question, deadline) for question in questions]
    return [one if isinstance(one, Prediction) else error_of(one) for one in answers]


def _alone(runner: Runner, question: Question, deadline: float) -> Answer:
    try:
        return runner.predict(question.batch, probabilities=question.probabilities, deadline_s=_time_to(deadline))
    except ModelError as fault:
        return error_of(fault)


def _load(message: Message) -> LoadRequest:
    """What loads the message's version.

    Raises:
        NotFound: the tenant or the version is gone, or the tenant is suspended.
    """
    with shared_scope():
        tenant = Tenant.objects.filter(pk=message.tenant).first()
    if tenant is not None and tenant.is_active:
        with tenant_scope(tenant):
            version = ModelVersion.objects.select_related("bundle").filter(pk=message.version_id).first()
            if version is not None:
                return load_request(version)
    raise NotFound("The version was deleted while the request waited.")


def _tell(message: Message, packed: bytes) -> None:
    """Send the reply; Valkey may be away for a moment, and who waits does so until the deadline."""
    for attempt in range(MOST_TELLS):
        try:
            return reply(message, packed)
        except redis.RedisError:
            log.warning("reply_not_sent", extra={"message_id": message.message_id, "attempt": attempt}, exc_info=True)
            time.sleep(TELL_AGAIN_S)
    return None


def _refuse(values: Mapping[str, Any], error: wire.OtherProtocol) -> None:
    """Tell another release's process to try again: what a reply must hold is the same in all of them."""
    log.warning("message_of_another_release", extra={"protocol": values.get("protocol")})
    if all(name in values for name in ("tenant", "message_id", "reply_to", "requests")):
        known = {name: values[name] for name in ("tenant", "message_id", "reply_to")}
        message = Message(version_id="", pool_key="", sent_at=time.time(), sends=1, requests=(), **known)
        _tell(message, wire.pack_reply(message.message_id, [error] * len(values["requests"]), 0.0))


def _left_s(request: Request) -> float:
    return request.answer_before - time.time() + CLOCK_SKEW_S


def _time_to(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimedOut("The deadline passed before the model was asked.")
    return left_s
