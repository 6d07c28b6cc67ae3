"""The queue lane: how requests leave, what a worker does with them, how answers come back, and what may go wrong."""

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
from celery import current_app

from common.errors import NotFound, PlatformError, TimedOut, Unavailable
from inference import lanes
from inference.costs import HEAVY_BYTES, Costs
from inference.decoding import Decoded
from inference.queued import hand, outbox, queues, wire, work
from inference.queued.outbox import Destination, Outbox
from inference.queued.turns import Turns
from inference.queued.valkey import valkey
from inference.queued.wire import Message, Reply, Request
from inference.routing import Route
from inference.served import Served
from models_registry.loading import pool_key
from runtimes.protocol import Prediction
from tenants.scope import current_tenant, tenant_scope
from tests.inference.workers import running_rabbitmq, running_worker, until, why_no_rabbitmq

ROWS = np.array([[2.0, 0, 0, 0], [-2.0, 0, 0, 0]])
QUEUE = "inference.0"


# --- what crosses ----------------------------------------------------------------------------------------------------


class Rotten(Unavailable):
    """An error of some app, which `common.errors` does not know."""

    code = "rotten"


@pytest.mark.parametrize("error", [NotFound("gone"), Rotten("It is rotten.", retry_after_s=3)])
def test_an_error_crosses_the_queue_as_its_kind(error):
    reply = Reply.unpack(wire.pack_reply("m", [error], 0.1))
    with pytest.raises(PlatformError) as caught:
        wire.opened(answers_in(reply)[0], asked(ROWS))
    assert isinstance(caught.value, NotFound if isinstance(error, NotFound) else Unavailable)
    assert (caught.value.code, caught.value.message) == (error.code, error.message)
    assert caught.value.retry_after_s == error.retry_after_s


def test_a_prediction_crosses_the_queue_unchanged():
    words = np.array(["yes", None], dtype=object)
    prediction = Prediction({"a": words, "b": np.array([1, 2])}, np.array([[0.25, 0.75], [1, 0]]))
    reply = Reply.unpack(wire.pack_reply("m", [prediction], 0.1))
    back = wire.opened(answers_in(reply)[0], asked(ROWS, probabilities=True))
    assert back.outputs["a"].tolist() == ["yes", None]
    np.testing.assert_array_equal(back.outputs["b"], [1, 2])
    np.testing.assert_array_equal(back.probabilities, prediction.probabilities)


def test_columns_of_texts_and_numbers_cross_the_queue_unchanged():
    columns = {"age": np.array([1.5, np.nan]), "name": np.array(["ä", None], dtype=object)}
    back = asked(columns).batch()
    np.testing.assert_array_equal(back["age"], columns["age"])
    assert back["name"].tolist() == ["ä", None]


def test_a_models_messages_always_go_to_the_same_queue_and_models_to_all_of_them():
    tenant = uuid.uuid4().hex
    assert queues.queue_of(tenant, "m") == queues.queue_of(tenant, "m")
    assert {queues.queue_of(tenant, f"m{number}") for number in range(200)} == set(queues.names())


# --- how requests leave ----------------------------------------------------------------------------------------------


class OneWorker:
    """A worker's part played by the test: it takes messages from the broker and answers when told to."""

    def __init__(self) -> None:
        self.connection = current_app.connection_for_read()
        self.queue = self.connection.SimpleQueue(QUEUE, serializer="msgpack")
        self.queue.consumer.accept = {"application/x-msgpack"}
        self.queue.clear()

    def takes(self, timeout_s=5.0):
        """The next message."""
        found = self.queue.get(timeout=timeout_s)
        found.ack()
        return Message.of_values(found.payload[1])

    def answers(self, message):
        """Each request is answered with its own rows' first column."""
        predictions = [Prediction({"y": request.batch()[:, 0]}) for request in message.requests]
        hand.reply(message, wire.pack_reply(message.message_id, predictions, 0.0))


@pytest.fixture
def one_worker():
    worker = OneWorker()
    yield worker
    worker.connection.close()


@pytest.fixture
def asking():
    """`asking(outbox, value)`: a request with this value, asked by a thread of its own; a future of its prediction."""
    with ThreadPoolExecutor(8) as threads:

        def ask(box, value, within_s=20.0, tenant="t"):
            request = asked(np.array([[float(value)]]))
            to = Destination(tenant, "v", f"{tenant}/v", QUEUE)
            return threads.submit(box.ask, to, request, time.monotonic() + within_s)

        yield ask


def test_requests_that_come_while_a_message_is_away_leave_together(one_worker, asking, monkeypatch):
    monkeypatch.setattr(outbox, "HOLD_S", 30.0)
    box = Outbox()
    first = asking(box, 1)
    alone = one_worker.takes()
    others = [asking(box, value) for value in (2, 3, 4)]
    until(lambda: sum(len(line.waiting) for line in box._lines.values()) == 3, "three wait in line")
    one_worker.answers(alone)
    together = one_worker.takes()
    one_worker.answers(together)

    assert (len(alone.requests), len(together.requests)) == (1, 3)
    assert [found.result()[0].outputs["y"].tolist() for found in (first, *others)] == [[1], [2], [3], [4]]
    assert (box._lines, box._away) == ({}, {})


def test_a_line_does_not_wait_long_for_a_slow_message_before_it(one_worker, asking):
    box = Outbox()
    first = asking(box, 1)
    slow = one_worker.takes()
    second = asking(box, 2)
    one_worker.answers(one_worker.takes())
    assert second.result()[0].outputs["y"].tolist() == [2]
    one_worker.answers(slow)
    assert first.result()[0].outputs["y"].tolist() == [1]


def test_a_message_that_nobody_speaks_of_is_sent_again_and_its_first_answer_counts(one_worker, asking, monkeypatch):
    monkeypatch.setattr(outbox, "SILENCE_S", 0.2)
    monkeypatch.setattr(outbox, "LOOK_S", 0.05)
    box = Outbox()
    answer = asking(box, 1)
    lost = one_worker.takes()
    again = one_worker.takes()
    assert (again.message_id, again.sends) == (lost.message_id, 2)
    one_worker.answers(again)
    assert answer.result()[0].outputs["y"].tolist() == [1]
    one_worker.answers(lost)  # a worker that was only slow; nobody waits for it any more
    later = asking(box, 5)
    one_worker.answers(one_worker.takes())
    assert later.result()[0].outputs["y"].tolist() == [5]


def test_a_message_in_hand_is_not_sent_again(one_worker, asking, monkeypatch):
    monkeypatch.setattr(outbox, "SILENCE_S", 0.4)
    monkeypatch.setattr(outbox, "LOOK_S", 0.05)
    box = Outbox()
    answer = asking(box, 1)
    message = one_worker.takes()
    for _ in range(8):
        time.sleep(0.1)  # the time that the worker takes, twice as long as silence would last
        hand.reply(message, wire.pack_sign_of_life(message.message_id))
    one_worker.answers(message)
    answer.result()
    with pytest.raises(one_worker.queue.Empty):
        one_worker.takes(timeout_s=0.1)


def test_nobody_waits_past_the_deadline(one_worker, asking):
    box = Outbox()
    started = time.monotonic()
    with pytest.raises(TimedOut):
        asking(box, 1, within_s=0.3).result()
    assert time.monotonic() - started < 2
    assert (box._lines, box._away) == ({}, {})


def test_a_broker_that_is_away_is_said_at_once(asking, monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionRefusedError

    monkeypatch.setattr(current_app, "send_task", refuse)
    with pytest.raises(Unavailable) as caught:
        asking(Outbox(), 1).result()
    assert caught.value.retry_after_s


# --- what a worker does ----------------------------------------------------------------------------------------------


def test_a_worker_answers_each_request_of_a_message(acme, serving):
    requests = [asked(ROWS), asked(ROWS[:1], probabilities=True), asked(ROWS[:, :2])]
    answers = worked(message_for(acme, serving, requests))
    assert wire.opened(answers[0], requests[0]).outputs["prediction"].tolist() == ["yes", "no"]
    table = wire.opened(answers[1], requests[1]).probabilities
    assert table is not None
    assert table.shape == (1, 2)
    with pytest.raises(PlatformError) as caught:
        wire.opened(answers[2], requests[2])
    assert caught.value.code == "model_error"


def test_a_warm_model_costs_a_worker_no_query(acme, serving, django_assert_num_queries):
    worked(message_for(acme, serving, [asked(ROWS)]))
    with django_assert_num_queries(0):
        worked(message_for(acme, serving, [asked(ROWS)]))


def test_expired_work_is_dropped(acme, serving):
    message = message_for(acme, serving, [asked(ROWS, left_s=-outbox.CLOCK_SKEW_S - 1)])
    work.work_on(message.to_values())
    assert not valkey().exists(message.reply_to)


def test_of_two_copies_of_an_old_message_one_is_worked_on(acme, serving):
    message = message_for(acme, serving, [asked(ROWS)], sent_at=time.time() - 3, sends=2)
    worked(message)
    work.work_on(message.to_values())
    assert not valkey().exists(message.reply_to)


def test_a_version_that_is_gone_is_said(acme, serving):
    message = message_for(acme, serving, [asked(ROWS)], version_id=str(uuid.uuid4()), pool_key=uuid.uuid4().hex)
    with pytest.raises(NotFound):
        wire.opened(worked(message)[0], asked(ROWS))


def test_a_message_of_another_release_is_answered_with_try_again(acme, serving):
    values = message_for(acme, serving, [asked(ROWS)]).to_values() | {"protocol": 99, "requests": ["unreadable"]}
    work.work_on(values)
    reply = Reply.unpack(first_of(values["reply_to"]))
    with pytest.raises(Unavailable) as caught:
        wire.opened(answers_in(reply)[0], asked(ROWS))
    assert (caught.value.code, caught.value.retry_after_s) == ("other_release", 5)


def test_one_tenant_holds_no_more_than_its_share_of_a_workers_threads():
    turns, busy, most = Turns(2), [0], [0]
    done: list[Any] = []
    gate, lock = threading.Event(), threading.Lock()

    def one(number: int) -> None:
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        gate.wait(10)
        with lock:
            busy[0] -= 1
            done.append(number)

    with ThreadPoolExecutor(6) as threads:
        futures = [threads.submit(turns.take, "greedy", partial(one, number)) for number in range(6)]
        until(lambda: sum(future.done() for future in futures) == 4, "four were set aside, and their threads are free")
        other = threads.submit(turns.take, "modest", lambda: done.append("modest"))
        other.result(5)
        assert done == ["modest"]
        gate.set()
    assert most == [2]
    assert sorted(map(str, done)) == ["0", "1", "2", "3", "4", "5", "modest"]


# --- which lane ------------------------------------------------------------------------------------------------------


def test_auto_leaves_large_inputs_and_slow_models_to_workers():
    costs, version = Costs(), uuid.uuid4()
    assert not costs.is_heavy(version, ROWS)
    assert costs.is_heavy(version, np.zeros((1, HEAVY_BYTES)))
    for _ in range(10):
        costs.note(version, 1.0)
    assert costs.is_heavy(version, ROWS)
    for _ in range(50):
        costs.note(version, 0.01)
    assert not costs.is_heavy(version, ROWS)


@pytest.mark.parametrize(
    ("deployment", "tenant", "platform", "lane"),
    [
        (None, "", "direct", "direct"),
        (None, "queue", "direct", "queue"),
        ("direct", "queue", "queue", "direct"),
        ("auto", "queue", "queue", "direct"),
        (None, "", "auto", "direct"),
    ],
)
def test_the_nearest_word_chooses_the_lane(acme, serving, settings, deployment, tenant, platform, lane):
    settings.PREDICTION_LANE = platform
    acme.lane = tenant
    with tenant_scope(acme):
        assert lanes.lane_of(Route("churn", Served.of(serving), deployment), Decoded(ROWS, 2)) == lane


def test_without_a_model_host_there_is_only_the_queue(acme, serving, settings):
    settings.MODELS_SOCKET = ""
    with tenant_scope(acme):
        assert lanes.lane_of(Route("churn", Served.of(serving), "direct"), Decoded(ROWS, 2)) == "queue"


# --- with a worker of its own ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("broker", ["valkey", "rabbitmq"])
def test_both_lanes_give_the_same_answers(broker, furnished, tmp_path, django_db_blocker, settings):
    if broker == "rabbitmq" and (reason := why_no_rabbitmq()):
        pytest.skip(reason)
    with django_db_blocker.unblock(), tenant_scope(furnished.tenant):
        route = Route("churn", _serving_version())
        if broker == "valkey":
            _compare_lanes(route, settings, {})
        else:
            with running_rabbitmq(tmp_path) as address:
                _compare_lanes(route, settings, {"BROKER_URL": address})


def _serving_version():
    from models_registry.models import ModelVersion

    return Served.of(ModelVersion.objects.get(model__name="churn", number=1))


def _compare_lanes(route, settings, of_broker):
    rows = np.random.default_rng(3).normal(size=(24, 4))
    direct = lanes.predict(_over(route, "direct"), Decoded(rows, 24), probabilities=True, deadline=soon())
    tenant, cache_root = current_tenant(), settings.BLOB_CACHE_ROOT
    with (
        using_broker(of_broker),
        running_worker("inference", **of_broker, BLOB_CACHE_ROOT=cache_root),
        ThreadPoolExecutor(8) as threads,
    ):
        parts = list(threads.map(lambda row: _queued(tenant, route, row), np.split(rows, 24)))
    assert [part.outputs["prediction"][0] for part in parts] == direct.outputs["prediction"].tolist()
    together = np.vstack([np.asarray(part.probabilities) for part in parts])
    np.testing.assert_allclose(together, np.asarray(direct.probabilities))


def _queued(tenant, route, rows):
    from django.db import connection

    with tenant_scope(tenant):
        try:
            return lanes.predict(_over(route, "queue"), Decoded(rows, 1), probabilities=True, deadline=soon())
        finally:
            connection.close()


def _over(route, lane):
    return Route(route.model_name, route.version, lane)


@contextmanager
def using_broker(settings):
    """This process's Celery application with another broker inside the block, or as it is."""
    app: Any = current_app
    conf = app.conf
    known = conf.broker_url, conf.broker_transport_options
    if settings:
        conf.broker_url, conf.broker_transport_options = settings["BROKER_URL"], {}
    app._pool = app.amqp._producer_pool = None
    try:
        yield
    finally:
        conf.broker_url, conf.broker_transport_options = known
        app._pool = app.amqp._producer_pool = None


def asked(batch, *, probabilities=False, left_s=20.0):
    return Request.of(batch, probabilities=probabilities, answer_before=time.time() + left_s)


def message_for(tenant, version, requests, **changes):
    """A message as an outbox would send it, with a list of replies of its own."""
    usual: dict[str, Any] = {
        "tenant": str(tenant.uuid),
        "version_id": str(version.pk),
        "pool_key": pool_key(tenant, version),
        "message_id": uuid.uuid4().hex,
        "reply_to": f"tenantry:tests:{uuid.uuid4().hex}",
        "sent_at": time.time(),
        "sends": 1,
    }
    return Message(**usual | changes, requests=requests)


def worked(message):
    """The packed answers of a worker that this thread plays."""
    work.work_on(message.to_values())
    answers = answers_in(Reply.unpack(first_of(message.reply_to)))
    assert not valkey().exists(message.reply_to)
    return answers


def first_of(key: str) -> bytes:
    """What was put on this list first."""
    packed = valkey().lpop(key)
    assert isinstance(packed, bytes)
    return packed


def answers_in(reply: Reply) -> Any:
    assert reply.answers is not None
    return reply.answers


def soon():
    return time.monotonic() + 20
