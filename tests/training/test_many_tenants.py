"""An operator trains for many tenants at once and gets one report."""

import uuid

import pytest

from tenants import jobs
from tenants.journal.models import AuditEvent
from tenants.scope import tenant_scope
from tests.training.conftest import run_body, upload
from training import execution
from training.models import Run


def asked(**changes):
    return {"tenants": ["acme", "globex", "nobody"], **run_body(), **changes}


@pytest.mark.usefixtures("model_host")
def test_one_report_tells_of_every_tenant(acme, globex, client_for, operator_client):
    upload(client_for(acme))
    answer = operator_client.post_json("api/v1/runs", asked())
    assert answer.status_code == 202, answer.content
    report = answer.json()
    assert report["counts"] == {"queued": 1, "refused": 2}
    told = {row["tenantId"]: row for row in report["results"]}
    assert "no dataset 'customers'" in told["globex"]["error"]
    assert "no such tenant" in told["nobody"]["error"]
    with tenant_scope(acme):
        jobs.work_on(told["acme"]["run"], execution.work)
        assert AuditEvent.objects.filter(action="run.submit", actor__startswith="operator").count() == 1
        assert Run.objects.get().group == uuid.UUID(report["id"])
    shown = operator_client.get(answer["Location"].removeprefix("/")).json()
    assert shown["counts"] == {"succeeded": 1}
    assert shown["results"][0]["metrics"]["accuracy"] > 0.5
    assert shown["results"][0]["version"] == 1


def test_a_request_that_is_sent_again_begins_nothing_twice(acme, globex, client_for, operator_client):
    upload(client_for(acme))
    key = {"HTTP_IDEMPOTENCY_KEY": "nightly-1"}
    first = operator_client.post_json("api/v1/runs", asked(), **key).json()
    upload(client_for(globex))
    again = operator_client.post_json("api/v1/runs", asked(), **key).json()
    assert again["id"] == first["id"]
    assert again["results"][0]["run"] == first["results"][0]["run"]
    assert again["counts"] == {"queued": 2, "refused": 1}  # it goes on where the first one was refused
    with tenant_scope(acme):
        assert Run.objects.count() == 1
    other = operator_client.post_json("api/v1/runs", asked(model="another"), **key).json()
    assert other["id"] != first["id"]


def test_an_unknown_report_is_not_there(operator_client):
    assert operator_client.get(f"api/v1/runs/{uuid.uuid4()}").status_code == 404
