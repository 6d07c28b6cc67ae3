"""Tenants over HTTP, for operators."""

from typing import Any

import pytest

from tenants import services
from tenants.models import OperatorAudit, Tenant, TenantState, User
from tests.clients import TenantClient, client_of

ROUTES = {
    "api/v1/whoami": ("GET",),
    "api/v1/schema": ("GET",),
    "api/v1/status": ("GET",),
    "api/v1/tenants": ("GET", "POST"),
    "api/v1/tenants/acme": ("GET", "PATCH", "DELETE"),
    "metrics": ("GET",),
}


def operator_of(scope: str, *tenants: Tenant) -> TenantClient:
    _, secret = services.issue_operator_token(
        name="few", scopes=[scope], tenants=tenants, all_tenants=not tenants, expires_in=None, actor="tests"
    )
    return TenantClient("", secret)


def test_the_operators_surface_opens_to_no_tenants_token_and_no_tenants_admin(acme: Tenant) -> None:
    admin = TenantClient("")
    admin.force_login(User.objects.get(email="admin@acme.test"))
    for client in (TenantClient(""), TenantClient("", client_of(acme).token), admin):
        for path, methods in ROUTES.items():
            for method in methods:
                assert client.generic(method, path).status_code == 401, f"{method} {path}"


def test_an_operator_who_may_only_read_changes_nothing(acme: Tenant) -> None:
    client = operator_of("read")

    assert client.get("api/v1/tenants/acme").status_code == 200
    assert client.post_json("api/v1/tenants", {"tenantId": "new-one", "admin": "a@b.test"}).status_code == 403
    assert client.patch_json("api/v1/tenants/acme", {"name": "x"}).status_code == 403
    assert client.delete("api/v1/tenants/acme?confirm=acme").status_code == 403


def test_an_operator_of_some_tenants_sees_and_changes_no_others(acme: Tenant, globex: Tenant) -> None:
    client = operator_of("admin", acme)

    assert [one["tenantId"] for one in client.get("api/v1/tenants").json()["results"]] == ["acme"]
    assert client.get("api/v1/tenants/globex").status_code == 404
    assert client.delete("api/v1/tenants/globex?confirm=globex").status_code == 404
    assert client.post_json("api/v1/tenants", {"tenantId": "new-one", "admin": "a@b.test"}).status_code == 403
    assert client.get("metrics").status_code == 403


def test_a_tenant_is_made_changed_and_deleted(operator_client: TenantClient) -> None:
    made = operator_client.post_json("api/v1/tenants", {"tenantId": "initech", "admin": "boss@initech.test"})
    assert made.status_code == 201
    assert made["Location"] == "/api/v1/tenants/initech"
    assert TenantClient("/t/initech", made.json()["token"]).get("api/v1/models").json()["results"] == []

    body = {"name": "Initech", "state": "suspended", "quotas": {"max_open_runs": 3}, "storage": "database"}
    changed = operator_client.patch_json("api/v1/tenants/initech", body).json()
    assert (changed["name"], changed["state"], changed["storage"]) == ("Initech", "suspended", "database")
    assert changed["quotas"]["max_open_runs"] == 3
    assert TenantClient("/t/initech", made.json()["token"]).get("api/v1/models").status_code == 403

    assert operator_client.delete("api/v1/tenants/initech").status_code == 422
    assert operator_client.delete("api/v1/tenants/initech?confirm=initech").status_code == 204
    assert operator_client.get("api/v1/tenants/initech").status_code == 404
    assert set(OperatorAudit.objects.filter(tenant_id="initech").values_list("action", flat=True)) == {
        "tenant.provision",
        "tenant.update",
        "tenant.suspend",
        "tenant.delete",
    }


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"tenantId": "acme", "admin": "a@b.test"}, (409, "already_exists")),
        ({"tenantId": "Acme!", "admin": "a@b.test"}, (422, "invalid_parameter")),
        ({"tenantId": "admin", "admin": "a@b.test"}, (422, "invalid_parameter")),
        ({"tenantId": "new-one", "admin": "nobody"}, (422, "invalid_parameter")),
        ({"tenantId": "new-one", "admin": "a@b.test", "storage": "default"}, (422, "invalid_parameter")),
        ({"tenantId": "new-one"}, (422, "invalid_parameter")),
    ],
)
def test_a_tenant_that_cannot_be_is_refused(
    operator_client: TenantClient, acme: Tenant, body: Any, expected: tuple[int, str]
) -> None:
    response = operator_client.post_json("api/v1/tenants", body)

    assert (response.status_code, response.json()["error"]["code"]) == expected
    assert not Tenant.objects.filter(tenant_id="new-one").exists()


def test_tenants_are_listed_by_pages(operator_client: TenantClient, acme: Tenant, globex: Tenant) -> None:
    first = operator_client.get("api/v1/tenants?limit=1").json()
    second = operator_client.get(f"api/v1/tenants?limit=1&cursor={first['next']}").json()

    assert [first["results"][0]["tenantId"], second["results"][0]["tenantId"]] == ["acme", "globex"]
    Tenant.objects.filter(pk=acme.pk).update(state=TenantState.SUSPENDED)
    assert len(operator_client.get("api/v1/tenants?state=suspended").json()["results"]) == 1
    assert operator_client.get("api/v1/tenants?state=asleep").status_code == 422


def test_metrics_count_tenants_and_jobs(operator_client: TenantClient, acme: Tenant) -> None:
    from tenants.models import Job

    Job.objects.create(tenant=acme, kind="training.run", object_id="1")
    text = operator_client.get("metrics").content.decode()

    assert 'tenantry_jobs_open{kind="training.run",state="queued",tenant="acme"} 1.0' in text
    assert 'tenantry_oldest_queued_job_seconds{kind="training.run"}' in text
    assert "process_resident_memory_bytes" in text


def test_status_says_what_is_missing(operator_client: TenantClient) -> None:
    response = operator_client.get("api/v1/status")

    assert response.status_code == 503
    parts = response.json()["parts"]
    assert {name for name in ("database", "migrations", "cache", "broker") if parts[name]["ready"]} == {
        "database",
        "migrations",
        "cache",
        "broker",
    }
    assert parts["queue_training"] == {"ready": False, "detail": "no worker consumes the queue `training`"}


def test_the_schema_names_every_path_of_its_surface(operator_client: TenantClient, acme: Tenant) -> None:
    operators = operator_client.get("api/v1/schema").json()
    tenants = client_of(acme).get("api/v1/schema").json()

    assert {"/api/v1/tenants", "/api/v1/tenants/{tenant_id}", "/api/v1/status"} <= set(operators["paths"])
    assert "/api/v1/members" not in operators["paths"]
    assert {"/api/v1/members", "/api/v1/tokens", "/api/v1/models"} <= set(tenants["paths"])
    assert tenants["servers"] == [{"url": "/t/acme"}]
    keys = [parameter["name"] for parameter in tenants["paths"]["/api/v1/tokens"]["post"]["parameters"]]
    assert "Idempotency-Key" in keys
