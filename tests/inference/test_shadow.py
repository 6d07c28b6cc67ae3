"""A shadow is asked the same as who answers, and compared; nobody waits for it."""

import threading
import time
import tracemalloc

import numpy as np
import pytest

from common.errors import Unavailable
from inference import shadow
from inference.comparison import MOST_KEPT, Tally, compare
from models_registry import deployments
from models_registry.models import RegisteredModel
from models_registry.routing import Share
from runtimes.client import Prediction
from tenants.scope import tenant_scope
from tests.clients import TenantClient
from tests.inference.conftest import fitted, registered

BATCH = np.array([[1.0], [2.0], [3.0]])
ROWS = [[2.0, 0, 0, 0], [-2.0, 0, 0, 0]]
NOW = "2026-01-01T00:00:00+00:00"


def prediction(*values, name="prediction"):
    is_text = any(isinstance(value, str) for value in values)
    return Prediction({name: np.array(values, dtype=object if is_text else None)})


class TestComparing:
    """What two answers tell."""

    def test_texts_agree_where_they_are_equal(self):
        tally = compare(prediction("a", "b", "c"), prediction("a", "x", "c"), BATCH, NOW)
        assert (tally.rows, tally.agreeing_rows, tally.differences) == (3, 2, {})
        assert tally.disagreements == [
            {
                "at": NOW,
                "row": 1,
                "answered": {"prediction": "b"},
                "shadow": {"prediction": "x"},
                "inputs": [2.0],
            }
        ]

    def test_numbers_agree_where_they_are_nearly_equal(self):
        tally = compare(prediction(1.0, 2.0, np.nan), prediction(1.0 + 1e-9, 2.5, np.nan), BATCH, NOW)
        assert tally.agreeing_rows == 2
        assert list(tally.differences["prediction"]) == pytest.approx([2, 0.5, 0.5])

    def test_outputs_of_another_name_or_shape_agree_nowhere(self):
        for other in (prediction(1, 2, 3, name="y"), Prediction({"prediction": np.zeros((3, 2))})):
            assert compare(prediction(1, 2, 3), other, BATCH, NOW).agreeing_rows == 0

    def test_what_cannot_be_kept_is_changed_until_it_can(self):
        texts = Prediction({"prediction": np.array(["\0a", "\ud800", "x" * 10_000], dtype=object)})
        tally = compare(texts, prediction("", "", ""), {"c": np.array([np.nan, 1, 2])}, NOW)
        kept = [one["answered"] for one in tally.disagreements]
        assert kept[:2] == [{"prediction": "a"}, {"prediction": "?"}]
        assert len(kept[2]) < 3_000
        assert tally.disagreements[0]["inputs"] == {"c": None}

    def test_answers_of_any_size_are_compared_in_little_memory(self):
        large = np.zeros((1, 1 << 23), dtype=np.int8)
        tracemalloc.start()
        try:
            tally = compare(Prediction({"mask": large}), Prediction({"mask": large + 1}), BATCH, NOW)
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert tally.agreeing_rows == 0
        assert len(tally.disagreements[0]["answered"]) <= 2_000
        assert peak_bytes < 4 * large.nbytes

    def test_tallies_add_up(self):
        whole = Tally()
        for _ in range(60):
            whole.add(compare(prediction(1.0, 2.0, 3.0), prediction(2.0, 4.0, 3.0), BATCH, NOW))
        whole.add(Tally(failed=1, dropped=2, last_failure="because"))
        whole = Tally.from_json(whole.to_json() | {"of_a_later_release": 1})
        assert (whole.requests, whole.rows, whole.agreeing_rows) == (60, 180, 60)
        assert list(whole.differences["prediction"]) == pytest.approx([180, 180, 2])
        assert (whole.failed, whole.dropped, whole.last_failure) == (1, 2, "because")
        assert len(whole.disagreements) == MOST_KEPT


@pytest.fixture(scope="module")
def tenant(furnished):
    """Version 1 of `churn` serves with version 2, which says the opposite, as its shadow."""
    with tenant_scope(furnished.tenant):
        second = registered("churn", fitted("no", "yes"))
        deployments.change_deployment(model=second.model, actor="tests", shadow=Share(2, 100))
    return furnished


@pytest.fixture
def client(tenant):
    return TenantClient(tenant.tenant.base_path, tenant.token)


def report(client, query=""):
    shadow.mirror().settle()
    return client.get(f"api/v1/models/churn/shadow{query}").json()


def predict(client, **more):
    answer = client.post_json("api/v1/models/churn/predict", {"instances": ROWS} | more)
    assert answer.status_code == 200, answer.content
    return answer.json()


def test_the_shadow_is_asked_and_compared_and_never_answers(client):
    before = report(client)
    for _ in range(5):
        answer = predict(client)
        assert (answer["version"], answer["predictions"]) == (1, ["yes", "no"])
    after = report(client)
    assert (after["version"], after["shadow"]) == (1, 2)
    assert (after["requests"] - before["requests"], after["rows"] - before["rows"]) == (5, 10)
    assert after["agreement"] == 0
    newest = after["disagreements"][0]
    assert (newest["answered"], newest["shadow"]) == ({"prediction": "yes"}, {"prediction": "no"})
    assert newest["inputs"] == ROWS[0]
    assert after["shadow_mean_ms"] > 0
    assert after["answered_mean_ms"] > 0


def test_a_version_that_is_named_has_no_shadow(client):
    before = report(client)["requests"]
    predict(client, version=1)
    assert report(client)["requests"] == before


def test_every_protocol_is_mirrored(client):
    before = report(client)["requests"]
    name = client.get("v2/models/churn").json()["inputs"][0]["name"]
    rows = {"name": name, "shape": [2, 4], "datatype": "FP64", "data": ROWS}
    assert client.post_json("v2/models/churn/infer", {"inputs": [rows]}).status_code == 200
    assert client.post_json("models/churn/invocations", {"instances": ROWS}).status_code == 200
    assert report(client)["requests"] == before + 2


def test_a_shadow_that_fails_is_counted_and_no_more(tenant, client):
    before = report(client)

    def fail(*anything, **more):
        raise Unavailable("It is away.", code="host_unavailable")

    watched(tenant, fail)
    after = report(client)
    assert (after["failed"] - before["failed"], after["last_failure"]) == (1, "host_unavailable: It is away.")


def test_who_answers_never_waits_for_the_shadow(tenant, client):
    """Its queue is full: what comes then is dropped, and counted."""
    before, is_over = report(client), threading.Event()

    def hang(*anything, **more):
        is_over.wait(30)
        raise Unavailable("too late")

    started = time.monotonic()
    for _ in range(shadow.MOST_WAITING_EACH + 7):
        watched(tenant, hang)
    assert time.monotonic() - started < 1
    is_over.set()
    after = report(client)
    assert after["dropped"] - before["dropped"] == 7
    assert after["failed"] - before["failed"] == shadow.MOST_WAITING_EACH


@pytest.mark.parametrize("answered", [prediction("x" * (30 << 20)), prediction(*[0.0] * (30 << 17))])
def test_answers_that_wait_are_bounded_in_bytes(tenant, client, answered):
    before, is_over = report(client), threading.Event()

    def hang(*anything, **more):
        is_over.wait(30)
        raise Unavailable("too late")

    for _ in range(5):
        watched(tenant, hang, answered)
    is_over.set()
    assert report(client)["dropped"] - before["dropped"] == 3


def watched(tenant, ask, answered=None):
    """Have a request mirrored whose shadow is asked by `ask`."""
    from inference.decoding import Decoded
    from inference.routing import route

    with tenant_scope(tenant.tenant):
        shadow.watch(route("churn", {}), Decoded(BATCH, 3), answered or prediction("a", "b", "c"), 0.001, ask)


def test_each_activation_has_a_report_of_its_own(tenant, client):
    predict(client)
    first = report(client)
    with tenant_scope(tenant.tenant):
        model = RegisteredModel.objects.get(name="churn")
        deployments.change_deployment(model=model, actor="tests", lane="direct")
    assert report(client)["requests"] == 0
    predict(client)
    assert report(client)["requests"] == 1
    assert report(client, f"?activation={first['activation']}")["requests"] == first["requests"]
    assert client.get("api/v1/models/churn/shadow?activation=999").status_code == 404
    assert client.get("api/v1/models/churn/shadow?activation=x").status_code == 422


def test_a_shadow_that_is_taken_away_is_asked_no_more(tenant, client):
    with tenant_scope(tenant.tenant):
        model = RegisteredModel.objects.get(name="churn")
        deployments.change_deployment(model=model, actor="tests", shadow=None)
    predict(client)
    body = report(client)
    assert (body["shadow"], body["requests"], body["agreement"]) == (None, 0, None)
