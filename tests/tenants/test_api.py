"""Members, tokens, settings and the audit trail over HTTP."""

from typing import Any

import pytest

from tenants import services
from tenants.journal.models import AuditEvent, KeptAnswer
from tenants.models import ApiToken, Membership, Role, Tenant, User
from tenants.scope import tenant_scope
from tests.clients import TenantClient, client_of, operator_client


def error_of(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.fixture
def client(acme: Tenant) -> TenantClient:
    return client_of(acme)


def test_whoami_says_who_is_asking(acme: Tenant) -> None:
    assert client_of(acme, "write").get("api/v1/whoami").json() == {
        "name": "token:test",
        "kind": "token",
        "scopes": ["predict", "read", "write"],
        "tenantId": "acme",
        "expires_at": None,
    }


def test_an_admin_adds_a_person_who_gets_a_first_password(client: TenantClient, acme: Tenant) -> None:
    added = client.post_json("api/v1/members", {"email": "New@Acme.test", "role": "data_scientist"})

    assert added.status_code == 201
    assert added.json()["email"] == "new@acme.test"
    user = User.objects.get(email="new@acme.test")
    assert user.check_password(added.json()["password"])
    assert client.get(added["Location"].removeprefix("/t/acme")).json()["role"] == "data_scientist"


def test_a_member_cannot_be_added_twice(client: TenantClient) -> None:
    body = {"email": "admin@acme.test", "role": "viewer"}

    assert error_of(client.post_json("api/v1/members", body)) == (409, "already_exists")


def test_only_an_operator_brings_in_who_is_a_member_elsewhere(client: TenantClient, acme: Tenant) -> None:
    body = {"email": "admin@globex.test", "role": "viewer"}
    assert error_of(client.post_json("api/v1/members", body)) == (409, "known_elsewhere")

    operator = TenantClient(acme.base_path, operator_client().token)
    assert operator.post_json("api/v1/members", body).json()["password"] is None


def test_an_account_that_was_left_behind_gets_a_new_password(client: TenantClient, globex: Tenant) -> None:
    member, first = services.add_member(tenant=globex, email="x@y.test", role="viewer", actor="tests")
    services.remove_member(membership=member, actor="tests")

    second = client.post_json("api/v1/members", {"email": "x@y.test"}).json()["password"]

    assert second
    assert not User.objects.get(email="x@y.test").check_password(first or "")


def test_the_last_admin_can_neither_go_nor_be_demoted(client: TenantClient, acme: Tenant) -> None:
    admin = Membership.objects.get(tenant=acme)
    path = f"api/v1/members/{admin.pk}"

    assert error_of(client.delete(path)) == (409, "last_admin")
    assert error_of(client.patch_json(path, {"role": "viewer"})) == (409, "last_admin")
    assert client.patch_json(path, {"role": "admin"}).status_code == 200

    services.add_member(tenant=acme, email="second@acme.test", role="admin", actor="tests")
    assert client.patch_json(path, {"role": "viewer"}).json()["role"] == "viewer"
    assert client.delete(path).status_code == 204


def test_a_repeated_token_request_makes_one_token_and_shows_its_secret_once(client: TenantClient, acme: Tenant) -> None:
    body = {"name": "ci", "scopes": ["read"], "expires_in": "90d"}
    first = client.post_json("api/v1/tokens", body, HTTP_IDEMPOTENCY_KEY="k1")
    second = client.post_json("api/v1/tokens", body, HTTP_IDEMPOTENCY_KEY="k1")

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json() | {"token": first.json()["token"]}
    assert ApiToken.objects.filter(tenant=acme, name="ci").count() == 1
    with tenant_scope(acme):
        assert first.json()["token"] not in str(KeptAnswer.objects.get().body)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopes": []},
        {"scopes": ["root"]},
        {"name": ""},
        {"name": "x" * 101},
        {"expires_in": "soon"},
        {"expires_in": "99999w"},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_in": "1d", "expires_at": "2999-01-01T00:00:00Z"},
        {"tenant": "globex"},
    ],
)
def test_a_token_that_cannot_be_is_422(client: TenantClient, wrong: dict[str, Any]) -> None:
    response = client.post_json("api/v1/tokens", {"name": "ci", "scopes": ["read"]} | wrong)

    assert response.status_code == 422
    assert response.json()["error"]["fields"]


def test_a_revoked_token_stays_in_the_list(client: TenantClient, acme: Tenant) -> None:
    made = client.post_json("api/v1/tokens", {"name": "ci", "scopes": ["read"]}).json()

    assert client.delete(f"api/v1/tokens/{made['id']}").status_code == 204
    assert client.get(f"api/v1/tokens/{made['id']}").json()["is_usable"] is False
    assert TenantClient(acme.base_path, made["token"]).get("api/v1/whoami").status_code == 401


def test_an_admin_sets_what_is_the_tenants_and_no_more(client: TenantClient, acme: Tenant) -> None:
    changed = client.patch_json("api/v1/settings", {"default_model": "churn", "lane": "queue"})

    assert (changed.json()["default_model"], changed.json()["lane"]) == ("churn", "queue")
    refused: tuple[dict[str, Any], ...] = (
        {"storage": "s3"},
        {"state": "suspended"},
        {"quotas": {}},
        {"lane": "fast"},
        {"default_model": "a/b"},
    )
    for body in refused:
        assert client.patch_json("api/v1/settings", body).status_code == 422, body
    acme.refresh_from_db()
    assert (acme.storage_alias, acme.default_model) == ("filesystem", "churn")


def test_the_audit_is_read_by_pages_and_filters(client: TenantClient, acme: Tenant) -> None:
    with tenant_scope(acme):
        AuditEvent.objects.all().delete()
        for number in range(5):
            AuditEvent.objects.create(actor="a", action=f"version.{number}", target="churn")
        AuditEvent.objects.create(actor="b", action="token.issue")

    first = client.get("api/v1/audit?limit=4").json()
    rest = client.get(f"api/v1/audit?limit=4&cursor={first['next']}").json()

    assert [len(first["results"]), len(rest["results"]), rest["next"]] == [4, 2, None]
    assert len(client.get("api/v1/audit?action=version.").json()["results"]) == 5
    assert len(client.get("api/v1/audit?actor=b").json()["results"]) == 1
    assert client.get("api/v1/audit?since=2999-01-01T00:00:00Z").json()["results"] == []
    assert len(client.get("api/v1/audit?since=2020-01-01T00:00:00+00:00").json()["results"]) == 6


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "cursor=x",
        "order_by=secret",
        "since=yesterday",
        "since=0001-01-01T00:00:00%2B23:59",
        "cursor=cD1h",
    ],
)
def test_a_list_asked_for_wrongly_is_422(client: TenantClient, query: str) -> None:
    assert client.get(f"api/v1/audit?{query}").status_code == 422


@pytest.mark.parametrize("path", ["members", "tokens", "audit"])
def test_a_list_costs_as_many_queries_for_many_as_for_one(
    client: TenantClient, acme: Tenant, path: str, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        services.add_member(tenant=acme, email=f"m{number}@acme.test", role=Role.VIEWER, actor="tests")
        services.issue_token(tenant=acme, name=f"t{number}", scopes=["read"], expires_in=None, actor="tests")
    client.get("api/v1/whoami")

    with django_assert_max_num_queries(8):
        assert len(client.get(f"api/v1/{path}").json()["results"]) >= 20


def test_a_reset_link_sets_a_password_once(client: TenantClient, acme: Tenant) -> None:
    member, _ = services.add_member(tenant=acme, email="x@acme.test", role="viewer", actor="tests")
    link = client.post_json(f"api/v1/members/{member.pk}/reset-link").json()["link"]
    assert link.startswith("http://testserver/t/acme/reset/")
    browser = TenantClient(acme.base_path)
    path = link.removeprefix("http://testserver/t/acme")

    form = browser.get(path)
    new = {"new_password1": "a quite long phrase", "new_password2": "a quite long phrase"}
    done = browser.post(form["Location"].removeprefix("/t/acme"), new)

    assert done["Location"] == "/t/acme/reset/done"
    assert User.objects.get(email="x@acme.test").check_password("a quite long phrase")
    assert b"does not work any more" in TenantClient(acme.base_path).get(path).content


def test_a_link_dies_when_the_account_opens_more(client: TenantClient, acme: Tenant, globex: Tenant) -> None:
    member, _ = services.add_member(tenant=acme, email="x@acme.test", role="viewer", actor="tests")
    link = client.post_json(f"api/v1/members/{member.pk}/reset-link").json()["link"]
    services.add_member(tenant=globex, email="x@acme.test", role="admin", actor="tests", by_operator=True)

    path = link.removeprefix("http://testserver/t/acme")
    assert b"does not work any more" in TenantClient(acme.base_path).get(path).content
    assert error_of(client.post_json(f"api/v1/members/{member.pk}/reset-link")) == (403, "known_elsewhere")
