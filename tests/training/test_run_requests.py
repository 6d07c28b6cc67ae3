"""A run is checked whole before anything is kept; then it is a row and a job under one id."""

import json
import uuid

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tenants.journal.models import AuditEvent
from tenants.models import Job, JobState, Tenant
from tenants.scope import tenant_scope
from tests.training.conftest import customers, run_body, upload
from training.execution import RUN_KIND
from training.models import Experiment, Run, RunMetric


def submitted(client, **changes):
    answer = client.post_json("api/v1/runs", run_body(**changes))
    assert answer.status_code == 202, answer.content
    return answer.json()


def test_a_run_is_queued_with_its_job_under_one_id(acme, scientist, dataset):
    answer = scientist.post_json("api/v1/runs", run_body(experiment="spring"))
    run = answer.json()
    assert answer.status_code == 202
    assert answer["Location"] == f"/t/acme/api/v1/runs/{run['id']}"
    assert (run["kind"], run["state"], run["error"]) == (RUN_KIND, "queued", None)
    assert run["progress"] == {"percent": 0, "stage": ""}
    assert (run["dataset"], run["digest"], run["experiment"]) == ("customers", dataset["digest"], "spring")
    job = Job.objects.get(pk=run["id"])
    assert (job.kind, job.state, job.tenant, job.object_id) == (RUN_KIND, "queued", acme, uuid.UUID(run["id"]).hex)
    with tenant_scope(acme):
        assert Run.objects.get(pk=run["id"]).job_id == job.pk
        assert AuditEvent.objects.filter(action="run.submit", actor="token:test").count() == 1


def test_defaults_are_filled_in_and_kept(scientist, dataset):
    run = submitted(scientist, params={"C": 0.5}, validation=None)
    assert run["params"] == {"C": 0.5, "max_iter": 1000, "class_weight": None}
    assert run["validation"] == {"kind": "holdout", "fraction": 0.2, "seed": 0}


def test_a_run_uses_the_newest_version_unless_it_names_one(scientist, dataset):
    newest = upload(scientist, content=customers(seed=1)).json()
    assert submitted(scientist)["digest"] == newest["digest"]
    assert submitted(scientist, digest=dataset["digest"])["digest"] == dataset["digest"]


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        ({"trainer": "nothing"}, "trainer", "logistic_regression"),
        ({"dataset": "nothing"}, "dataset", "no dataset 'nothing'"),
        ({"digest": "00"}, "digest", "of this digest"),
        ({"target": "nothing"}, "target", "'age', 'city', 'spent', 'left'"),
        ({"params": {"C": -1}}, "params.C", "greater than 0"),
        ({"params": {"C": "x"}}, "params.C", "valid number"),
        ({"params": {"depth": 3}}, "params.depth", "not permitted"),
        ({"params": []}, "params", "dictionary"),
        ({"validation": {"kind": "bootstrap"}}, "validation.kind", "'holdout'"),
        ({"validation": {"fraction": 2}}, "validation.fraction", "less than or equal to 0.9"),
        ({"validation": {"seed": -1}}, "validation.seed", "greater than or equal to 0"),
        ({"validation": {"shards": 5}}, "validation.shards", "not permitted"),
        ({"model": "a b"}, "model", "name"),
        ({"model": ".."}, "model", "name"),
        ({"experiment": "x" * 251}, "experiment", "250"),
        ({"activate_if": {"margin": 0.1}}, "activate_if.metric", "required"),
        ({"activate_if": {"metric": "accuracy", "margin": -1}}, "activate_if.margin", "greater than or equal to 0"),
        ({"activate_if": {"metric": "accuracy", "direction": "up"}}, "activate_if.direction", "'max' or 'min'"),
        ({"activate_if": {}}, "activate_if", "empty"),
        ({"activate_if": {"metric": "r2"}}, "activate_if.metric", "accuracy, f1, log_loss, roc_auc"),
        ({"activate_if": {"metric": "f1"}, "validation": {"kind": "none"}}, "activate_if", "nothing is measured"),
        ({"parms": {}}, "parms", "no such field"),
    ],
)
def test_each_fault_is_named_by_its_field(acme, client_for, dataset, changes, path, says):
    answer = client_for(acme).post_json("api/v1/runs", run_body(**changes))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "invalid_parameter")
    assert error["fields"].keys() == {path}
    assert says in error["fields"][path]
    assert not Job.objects.filter(kind=RUN_KIND).exists()
    with tenant_scope(acme):
        assert not Run.objects.exists()
        assert not Experiment.objects.exists()


def test_all_faults_are_named_at_once(scientist, dataset):
    answer = scientist.post_json("api/v1/runs", run_body(target="x", params={"C": 0}, model="a b"))
    assert answer.json()["error"]["fields"].keys() == {"target", "params.C", "model"}


def test_what_is_missing_is_named(scientist):
    answer = scientist.post_json("api/v1/runs", {})
    assert answer.json()["error"]["fields"].keys() == {"trainer", "dataset", "target", "model"}


@pytest.mark.parametrize(
    "body", ['{"params": {"C": 1e999}}', '{"params": {"\\ud800": 1}}', '{"\\ud800": 1}', '{"target": "\\u0000"}']
)
def test_what_no_database_could_keep_is_refused(scientist, dataset, body):
    merged = json.dumps(run_body() | json.loads(body))
    answer = scientist.post("api/v1/runs", merged.replace("Infinity", "1e999"), content_type="application/json")
    assert answer.status_code == 422, answer.content


def test_a_table_of_the_target_alone_cannot_be_learned_from(scientist):
    upload(scientist, "single", b"left\nyes\nno\n")
    answer = scientist.post_json("api/v1/runs", run_body(dataset="single"))
    assert "no column beside" in answer.json()["error"]["fields"]["target"]


def test_activating_takes_the_scope_that_activating_takes(acme, scientist, client_for, dataset):
    body = run_body(activate_if={"metric": "accuracy"})
    refused = scientist.post_json("api/v1/runs", body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "scope_required")
    run = client_for(acme, "admin").post_json("api/v1/runs", body).json()
    assert run["activate_if"] == {"metric": "accuracy", "margin": 0.0, "direction": "max"}


def test_a_loss_is_better_when_it_is_lower(acme, client_for, dataset):
    run = submitted(client_for(acme), activate_if={"metric": "log_loss", "margin": 0.1})
    assert run["activate_if"]["direction"] == "min"


def test_a_full_tenant_is_told_what_is_left(acme, scientist, dataset):
    Tenant.objects.filter(pk=acme.pk).update(max_open_runs=1)
    run = submitted(scientist)
    answer = scientist.post_json("api/v1/runs", run_body())
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_open_runs")
    assert int(answer["Retry-After"]) > 0
    assert "0 are left" in answer.json()["error"]["message"]
    scientist.post(f"api/v1/runs/{run['id']}/cancel")
    submitted(scientist)


def test_a_wrong_request_is_a_wrong_request_in_a_full_tenant_too(acme, scientist, dataset):
    Tenant.objects.filter(pk=acme.pk).update(max_open_runs=0)
    assert scientist.post_json("api/v1/runs", run_body(target="x")).status_code == 422


def test_a_run_asked_for_twice_with_one_key_is_one_run(scientist, dataset):
    key = {"HTTP_IDEMPOTENCY_KEY": uuid.uuid4().hex}
    first = scientist.post_json("api/v1/runs", run_body(), **key)
    again = scientist.post_json("api/v1/runs", run_body(), **key)
    assert (again.status_code, again.json(), again["Location"]) == (202, first.json(), first["Location"])
    assert Job.objects.filter(kind=RUN_KIND).count() == 1
    assert scientist.post_json("api/v1/runs", run_body(model="other"), **key).status_code == 422


def test_a_queued_run_is_cancelled_and_cancelling_again_is_no_error(acme, scientist, dataset):
    run = submitted(scientist)
    for _ in range(2):
        answer = scientist.post(f"api/v1/runs/{run['id']}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    with tenant_scope(acme):
        assert AuditEvent.objects.filter(action="run.cancel").count() == 1


def test_a_run_that_has_ended_cannot_be_cancelled(scientist, dataset):
    run = submitted(scientist)
    Job.objects.filter(pk=run["id"]).update(state=JobState.SUCCEEDED)
    answer = scientist.post(f"api/v1/runs/{run['id']}/cancel")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "already_ended")


def test_waiting_for_a_run_ends_with_it(scientist, dataset):
    run = submitted(scientist)
    assert scientist.get(f"api/v1/runs/{run['id']}?wait=0.3").json()["state"] == "queued"
    scientist.post(f"api/v1/runs/{run['id']}/cancel")
    assert scientist.get(f"api/v1/runs/{run['id']}?wait=30").json()["state"] == "cancelled"
    assert scientist.get(f"api/v1/runs/{run['id']}?wait=x").status_code == 422


def test_runs_are_filtered(scientist, dataset):
    spring = submitted(scientist, experiment="spring")["id"]
    forest = submitted(scientist, trainer="random_forest_classifier", params=None, model="forest")["id"]
    scientist.post(f"api/v1/runs/{forest}/cancel")

    def found(query):
        return [run["id"] for run in scientist.get(f"api/v1/runs?{query}").json()["results"]]

    assert found("") == [forest, spring]
    assert found("order_by=created_at") == [spring, forest]
    assert found("experiment=spring") == [spring]
    assert found("model=forest") == found("trainer=random_forest_classifier") == found("state=cancelled") == [forest]
    assert found("state=queued&model=forest") == []


@pytest.mark.parametrize("query", ["state=gone", "order_by=metrics", "limit=0", "model=a%00b", "cursor=nonsense"])
def test_a_list_that_cannot_be_made_is_refused(scientist, dataset, query):
    assert scientist.get(f"api/v1/runs?{query}").status_code == 422


def test_listing_takes_the_same_queries_however_long_the_list(scientist, dataset):
    def queries():
        with CaptureQueriesContext(connection) as context:
            assert scientist.get("api/v1/runs").status_code == 200
        return len(context)

    submitted(scientist, experiment="spring")
    few = queries()
    for _ in range(5):
        submitted(scientist, experiment="spring")
    assert queries() == few


def test_a_page_goes_on_where_the_last_one_ended(scientist, dataset):
    made = [submitted(scientist)["id"] for _ in range(3)]
    first = scientist.get("api/v1/runs?limit=2").json()
    rest = scientist.get(f"api/v1/runs?limit=2&cursor={first['next']}").json()
    assert [run["id"] for run in first["results"] + rest["results"]] == made[::-1]
    assert rest["next"] is None


def test_metrics_and_logs_are_read_by_run(acme, scientist, dataset):
    run_id = submitted(scientist)["id"]
    with tenant_scope(acme):
        run = Run.objects.get(pk=run_id)
        for step, value in enumerate([0.5, 0.7]):
            RunMetric.objects.create(run=run, key="accuracy", value=value, step=step, at=run.created_at)
        RunMetric.objects.create(run=run, key="loss", value=1, at=run.created_at)
        run.write_log("fitting\nforged line")
    history = scientist.get(f"api/v1/runs/{run_id}/metrics?key=accuracy").json()["results"]
    assert [(row["step"], row["value"]) for row in history] == [(0, 0.5), (1, 0.7)]
    assert len(scientist.get(f"api/v1/runs/{run_id}/metrics").json()["results"]) == 3
    log = scientist.get(f"api/v1/runs/{run_id}/logs").json()
    assert [line.split(" ", 1)[1] for line in log["lines"]] == ["fitting forged line"]
    assert log["is_cut"] is False


def test_a_log_is_bounded(acme, scientist, dataset):
    run_id = submitted(scientist)["id"]
    with tenant_scope(acme):
        run = Run.objects.get(pk=run_id)
        for number in range(80):
            run.write_log(f"{number} " + "x" * 2000)
    log = scientist.get(f"api/v1/runs/{run_id}/logs").json()
    assert log["is_cut"] is True
    assert 60 < len(log["lines"]) < 70
    assert " 79 x" in log["lines"][-1]
    assert all(line.startswith("20") for line in log["lines"])


def test_runs_are_compared_side_by_side(acme, scientist, dataset):
    ids = [submitted(scientist, params={"C": c})["id"] for c in (1, 2)]
    with tenant_scope(acme):
        Run.objects.filter(pk=ids[0]).update(metrics={"accuracy": 0.9, "f1": 0.8})
        Run.objects.filter(pk=ids[1]).update(metrics={"accuracy": 0.9})
    compared = scientist.get(f"api/v1/runs/compare?ids={','.join(ids)}").json()
    assert [run["id"] for run in compared["runs"]] == ids
    assert {"name": "C", "values": [1, 2], "is_same": False} in compared["params"]
    assert compared["metrics"] == [
        {"name": "accuracy", "values": [0.9, 0.9], "is_same": True},
        {"name": "f1", "values": [0.8, None], "is_same": False},
    ]


@pytest.mark.parametrize(
    ("ids", "status"),
    [("", 422), ("x,y", 422), (str(uuid.UUID(int=1)), 422), (f"{uuid.UUID(int=1)},{uuid.UUID(int=2)}", 404)],
)
def test_a_comparison_needs_runs(scientist, dataset, ids, status):
    assert scientist.get(f"api/v1/runs/compare?ids={ids}").status_code == status


def test_trainers_say_what_they_take(scientist):
    trainers = {trainer["name"]: trainer for trainer in scientist.get("api/v1/trainers").json()["results"]}
    forest = trainers["random_forest_classifier"]
    assert forest["task"] == "classification"
    assert forest["params"]["properties"]["n_estimators"]["default"] == 100
    assert {trainer["task"] for trainer in trainers.values()} == {"classification", "regression", "detection"}


def test_experiments_are_made_once_and_count_their_runs(acme, scientist, dataset):
    assert scientist.post_json("api/v1/experiments", {"name": "spring"}).status_code == 201
    again = scientist.post_json("api/v1/experiments", {"name": "spring"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "already_exists")
    assert scientist.post_json("api/v1/experiments", {"name": ""}).status_code == 422
    submitted(scientist, experiment="spring")
    listed = scientist.get("api/v1/experiments").json()["results"]
    assert [(row["name"], row["runs"]) for row in listed] == [("spring", 1)]


@pytest.mark.parametrize("path", ["", "/cancel", "/metrics", "/logs"])
def test_another_tenants_run_is_not_there(globex, client_for, scientist, dataset, path):
    address = f"api/v1/runs/{submitted(scientist)['id']}{path}"
    other = client_for(globex)
    answer = other.post(address) if path == "/cancel" else other.get(address)
    assert answer.status_code == 404


def test_a_reader_may_look_and_not_run(acme, client_for, scientist, dataset):
    run = submitted(scientist)
    reader = client_for(acme, "read")
    assert reader.get("api/v1/runs").status_code == 200
    assert reader.post_json("api/v1/runs", run_body()).status_code == 403
    assert reader.post(f"api/v1/runs/{run['id']}/cancel").status_code == 403
    assert reader.post_json("api/v1/experiments", {"name": "x"}).status_code == 403
