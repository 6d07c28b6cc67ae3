"""A prediction's way through HTTP, the pool and a confined runner."""

import pytest

from inference import predictions
from models_registry import services
from models_registry.metadata import parse_metadata
from tenants.scope import tenant_scope
from tests.inference.conftest import fitted

ROWS = [[2.0, 0, 0, 0], [-2.0, 0, 0, 0]]


@pytest.fixture
def client(acme, serving, client_for):
    return client_for(acme, "predict")


def error_of(answer):
    return answer.json()["error"]["code"]


def test_the_active_version_answers(client):
    answer = client.post_json("api/v1/models/churn/predict", {"instances": ROWS})
    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert (body["model"], body["version"], body["predictions"]) == ("churn", 1, ["yes", "no"])
    assert body["id"]
    assert "probabilities" not in body


def test_an_answer_of_too_many_values_is_refused_before_it_is_written(client, monkeypatch):
    monkeypatch.setattr(predictions, "MOST_VALUES_ANSWERED", len(ROWS))
    assert client.post_json("api/v1/models/churn/predict", {"instances": ROWS}).status_code == 200
    for path in ("api/v1/models/churn/predict", "models/churn/invocations"):
        answer = client.post_json(path, {"instances": [*ROWS, *ROWS]})
        assert "at most 2" in answer.content.decode(), answer.content


def test_the_tenants_lane_is_taken(client, acme):
    acme.lane = "queue"
    acme.save()
    body = {"instances": ROWS, "deadline_ms": 100}
    answer = client.post_json("api/v1/models/churn/predict", body)
    assert (answer.status_code, error_of(answer)) == (504, "deadline_exceeded")  # no worker runs here


def test_probabilities_come_with_their_classes(client):
    body = client.post_json("api/v1/models/churn/predict", {"instances": ROWS, "probabilities": True}).json()
    assert body["classes"] == ["no", "yes"]
    expected = fitted().predict_proba(ROWS)
    assert body["probabilities"] == [pytest.approx(row) for row in expected.tolist()]


def test_the_only_serving_model_is_the_default(client):
    assert client.post_json("api/v1/predict", {"instances": ROWS}).json()["model"] == "churn"


def test_the_default_model_is_a_setting(client, acme, ready_version):
    other = ready_version(acme, "other", fitted("no", "yes"))
    with tenant_scope(acme):
        services.activate(version=other, actor="tests")
    assert error_of(client.post_json("api/v1/predict", {"instances": ROWS})) == "no_default_model"
    acme.default_model = "other"
    acme.save()
    assert client.post_json("api/v1/predict", {"instances": ROWS}).json()["predictions"] == ["no", "yes"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"instances": [[1, 2, 3]]}, 422, "signature_mismatch"),
        ({"instances": [[1, 2, 3, "4"]]}, 422, "signature_mismatch"),
        ({"instances": [[1, 2, 3, None]]}, 422, "signature_mismatch"),
        ({"instances": []}, 422, "empty_input"),
        ({}, 400, "ambiguous_body"),
        ({"instances": ROWS, "inputs": ROWS}, 400, "ambiguous_body"),
        ({"instances": ROWS, "version": 99}, 404, "not_found"),
        ({"instances": ROWS, "version": "one"}, 422, "invalid_parameter"),
        ({"instances": ROWS, "alias": "nobody"}, 404, "not_found"),
        ({"instances": ROWS, "version": 1, "alias": "a"}, 400, "ambiguous_body"),
        ({"instances": ROWS, "deadline_ms": -1}, 422, "invalid_parameter"),
        ({"instances": ROWS, "select": {"metric": "auc"}}, 409, "no_such_metric"),
    ],
)
def test_each_mistake_has_its_own_answer(client, body, status, code):
    answer = client.post_json("api/v1/models/churn/predict", body)
    assert (answer.status_code, error_of(answer)) == (status, code)
    assert answer.json()["error"]["request_id"] == answer["X-Request-ID"]


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b'"x"', b"\xff"])
def test_a_body_that_is_no_json_object_is_malformed(client, raw):
    answer = client.post("api/v1/models/churn/predict", raw, content_type="application/json")
    assert (answer.status_code, error_of(answer)) == (400, "malformed")


def test_an_unknown_model_is_not_found(client):
    answer = client.post_json("api/v1/models/nope/predict", {"instances": ROWS})
    assert (answer.status_code, error_of(answer)) == (404, "not_found")


def test_a_model_without_an_active_version_says_so(client, acme, serving):
    with tenant_scope(acme):
        services.deactivate(model=serving.model, actor="tests")
    answer = client.post_json("api/v1/models/churn/predict", {"instances": ROWS})
    assert (answer.status_code, error_of(answer)) == (409, "no_active_version")


def test_a_version_is_chosen_by_number_alias_or_metric(client, acme, serving, ready_version):
    second = ready_version(acme, "churn", fitted("no", "yes"), metadata=parse_metadata({"metrics": {"auc": 0.9}}))
    with tenant_scope(acme):
        services.set_alias(version=second, name="candidate", actor="tests")
    for selector in ({"version": 2}, {"alias": "candidate"}, {"select": {"metric": "auc"}}):
        answer = client.post_json("api/v1/models/churn/predict", {"instances": ROWS, **selector})
        assert answer.json()["predictions"] == ["no", "yes"], answer.content
    assert client.post_json("api/v1/models/churn/predict", {"instances": ROWS}).json()["version"] == 1


def test_an_activation_changes_who_answers(client, acme, serving, ready_version):
    second = ready_version(acme, "churn", fitted("no", "yes"))
    with tenant_scope(acme):
        services.activate(version=second, actor="tests")
    answer = client.post_json("api/v1/models/churn/predict", {"instances": ROWS}).json()
    assert (answer["version"], answer["predictions"]) == (2, ["no", "yes"])


def test_another_tenants_model_of_the_same_name_is_not_seen(client, globex, ready_version, client_for):
    other = ready_version(globex, "churn", fitted("no", "yes"))
    with tenant_scope(globex):
        services.activate(version=other, actor="tests")
    there = client_for(globex, "predict")
    assert there.post_json("api/v1/models/churn/predict", {"instances": ROWS}).json()["predictions"] == ["no", "yes"]
    assert client.post_json("api/v1/models/churn/predict", {"instances": ROWS}).json()["predictions"] == ["yes", "no"]


def test_reading_is_not_predicting(acme, serving, client_for):
    answer = client_for(acme, "read").post_json("api/v1/models/churn/predict", {"instances": ROWS})
    assert (answer.status_code, error_of(answer)) == (403, "scope_required")


def test_other_methods_are_refused(client):
    assert client.get("api/v1/models/churn/predict").status_code == 405


def test_a_body_over_the_limit_is_too_large(client, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    answer = client.post_json("api/v1/models/churn/predict", {"instances": ROWS * 1000})
    assert (answer.status_code, error_of(answer)) == (413, "too_large")


def test_a_warm_prediction_asks_few_questions(client, django_assert_max_num_queries):
    client.post_json("api/v1/models/churn/predict", {"instances": ROWS})
    with django_assert_max_num_queries(8):  # tenant, token, deployment, and the search path before each
        client.post_json("api/v1/models/churn/predict", {"instances": ROWS})


def test_a_prediction_to_be_fetched_is_a_job(client, acme, client_for):
    accepted = client.post_json("api/v1/models/churn/predict", {"instances": ROWS, "async": True})
    assert accepted.status_code == 202, accepted.content
    body = accepted.json()
    assert accepted["Location"] == f"/t/acme/api/v1/predictions/{body['id']}"
    assert (body["kind"], body["state"], body["answer"]) == ("inference.predict", "queued", None)
    _work(acme, body["id"])
    fetched = client.get(f"api/v1/predictions/{body['id']}").json()
    assert fetched["state"] == "succeeded"
    assert fetched["answer"]["predictions"] == ["yes", "no"]


def test_a_prediction_to_be_fetched_is_checked_at_once(client):
    answer = client.post_json("api/v1/models/churn/predict", {"instances": [[1]], "async": True})
    assert (answer.status_code, error_of(answer)) == (422, "signature_mismatch")


def test_feedback_is_kept_once(client):
    prediction = client.post_json("api/v1/models/churn/predict", {"instances": ROWS}).json()["id"]
    for _ in range(2):
        assert client.post_json("api/v1/feedback", {"id": prediction, "truth": "yes"}).status_code == 201
    answer = client.post_json("api/v1/feedback", {"id": prediction, "truth": "no"})
    assert (answer.status_code, error_of(answer)) == (409, "already_exists")


def _work(tenant, job_id):
    from inference import execution
    from tenants.jobs import work_on

    with tenant_scope(tenant):
        work_on(job_id, execution.predict)


@pytest.mark.parametrize(
    "raw", [b'{"instances": [' + b"[]," * 400_000 + b"[]]}", b'{"instances": [' + b"1," * 4_100_000 + b"1]}"]
)
def test_a_body_that_would_swell_in_memory_is_too_large(client, raw):
    answer = client.post("api/v1/models/churn/predict", raw, content_type="application/json")
    assert (answer.status_code, error_of(answer)) == (413, "too_large")
