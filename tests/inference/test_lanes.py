"""The queue lane: what crosses it, and how it fails."""

import threading
import time

import orjson
import pytest

from common.errors import NotFound, PlatformError, TimedOut, Unavailable
from inference import lanes
from inference.routing import Route
from tenants.scope import tenant_scope

ROWS = {"instances": [[2.0, 0, 0, 0], [-2.0, 0, 0, 0]]}
KEY = "tenantry:test:reply"


class Rotten(Unavailable):
    """An error of some app, which `common.errors` does not know."""

    code = "rotten"


@pytest.mark.parametrize("error", [NotFound("gone"), Rotten("It is rotten.", retry_after_s=3)])
def test_an_error_crosses_the_queue_as_its_kind(error):
    with pytest.raises(PlatformError) as caught:
        lanes._opened(orjson.dumps(lanes._sealed(error)))
    assert isinstance(caught.value, NotFound if isinstance(error, NotFound) else Unavailable)
    assert (caught.value.code, caught.value.message) == (error.code, error.message)
    assert caught.value.retry_after_s == error.retry_after_s


def test_a_queued_request_is_answered_on_its_own_list(acme, serving):
    lanes.valkey().delete(KEY)
    with tenant_scope(acme):
        work(serving, answer_before=time.time() + 20)
    reply = replied()
    assert orjson.loads(reply)["predictions"] == ["yes", "no"]
    assert lanes.valkey().ttl(KEY) < 0  # the list went with its only element


def test_expired_work_is_dropped(acme, serving):
    lanes.valkey().delete(KEY)
    with tenant_scope(acme):
        work(serving, answer_before=time.time() - lanes.CLOCK_SKEW_S - 1)
    assert not lanes.valkey().exists(KEY)


def test_a_worker_that_breaks_still_answers(acme, serving):
    lanes.valkey().delete(KEY)
    with tenant_scope(acme):
        serving.signature = None  # what no ready version has: a bug of ours
        serving.save()
        work(serving, answer_before=time.time() + 20)
    reply = replied()
    with pytest.raises(Unavailable):
        lanes._opened(reply)


def test_a_reply_may_take_longer_than_the_clients_own_patience():
    lanes.valkey().delete(KEY)
    answered = orjson.dumps({"predictions": []})
    threading.Timer(5.5, lambda: lanes.valkey().rpush(KEY, answered)).start()
    assert lanes.valkey().blpop([KEY], timeout=10) is not None


def test_nobody_waits_past_the_deadline(acme, serving):
    with tenant_scope(acme), pytest.raises(TimedOut):
        lanes.answer(Route("churn", serving, "queue"), ROWS, time.monotonic() + 0.3)


def replied():
    """What the worker answered."""
    found = lanes.valkey().blpop([KEY], timeout=1)
    assert found is not None
    return found[1]


def work(version, answer_before):
    lanes.work_queued(
        version_id=str(version.pk),
        model_name="churn",
        body=orjson.dumps(ROWS).decode(),
        reply_key=KEY,
        answer_before=answer_before,
    )
