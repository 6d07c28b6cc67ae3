"""A token opens one address, for as long as it is good, and shows in the audit where it is an operator's."""

import base64
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from tenants import services, uses
from tenants.journal.models import AuditEvent
from tenants.models import ApiToken, OperatorAudit, Tenant
from tenants.scope import tenant_scope
from tests.clients import TenantClient, client_of


def who(tenant: Tenant, token: str, **headers: Any) -> Any:
    return TenantClient(tenant.base_path, token).get("api/v1/whoami", **headers)


def operator_token(scopes: list[str], *tenants: Tenant) -> str:
    _, secret = services.issue_operator_token(
        name="saas", scopes=scopes, tenants=tenants, all_tenants=not tenants, expires_in=None, actor="tests"
    )
    return secret


def test_only_a_digest_of_the_secret_is_kept(acme: Tenant) -> None:
    token, secret = services.issue_token(tenant=acme, name="ci", scopes=["read"], expires_in=None, actor="tests")

    kept = ApiToken.objects.filter(pk=token.pk).values()[0]
    assert len(secret) >= 43
    assert secret not in str(kept)


def test_a_token_works_as_bearer_and_as_basic_password(acme: Tenant) -> None:
    secret = client_of(acme, "read").token
    basic = base64.b64encode(f"anybody:{secret}".encode()).decode()

    assert who(acme, secret).status_code == 200
    assert who(acme, "", HTTP_AUTHORIZATION=f"Basic {basic}").status_code == 200


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Basic ?", "Basic /w==", "Digest x", "tny_x"])
def test_a_header_that_is_no_token_is_401(acme: Tenant, header: str) -> None:
    assert who(acme, "", HTTP_AUTHORIZATION=header).status_code == 401


def test_a_token_ends_when_it_expires(acme: Tenant) -> None:
    token, secret = services.issue_token(
        tenant=acme, name="ci", scopes=["read"], expires_in=timedelta(hours=1), actor="tests"
    )
    assert who(acme, secret).status_code == 200

    ApiToken.objects.filter(pk=token.pk).update(expires_at=timezone.now())
    assert who(acme, secret).status_code == 401


def test_a_token_ends_when_it_is_revoked_and_the_audit_says_so(acme: Tenant) -> None:
    token, secret = services.issue_token(tenant=acme, name="ci", scopes=["read"], expires_in=None, actor="a@acme.test")
    services.revoke_token(token=token, actor="a@acme.test")
    services.revoke_token(token=token, actor="a@acme.test")

    assert who(acme, secret).status_code == 401
    with tenant_scope(acme):
        assert list(AuditEvent.objects.filter(target="ci").order_by("at").values_list("action", flat=True)) == [
            "token.issue",
            "token.revoke",
        ]


def test_a_token_of_one_tenant_is_unknown_at_another(acme: Tenant, globex: Tenant) -> None:
    assert who(globex, client_of(acme).token).status_code == 401


def test_an_operator_token_works_for_the_tenants_it_lists(acme: Tenant, globex: Tenant) -> None:
    secret = operator_token(["predict"], acme)

    assert who(acme, secret).json()["scopes"] == ["predict"]
    assert who(globex, secret).status_code == 401
    assert who(globex, operator_token(["predict"])).status_code == 200


def test_a_use_of_an_operator_token_shows_once_a_minute_in_the_tenants_audit(acme: Tenant, globex: Tenant) -> None:
    secret = operator_token(["read"], acme, globex)
    for _ in range(3):
        who(acme, secret)

    with tenant_scope(acme):
        (line,) = AuditEvent.objects.filter(action="operator.access")
        assert (line.actor, line.detail) == ("operator:saas", {"first_request": "GET /api/v1/whoami"})
    with tenant_scope(globex):
        assert not AuditEvent.objects.filter(action="operator.access").exists()


def test_a_suspended_tenant_serves_nobody_but_an_administering_operator(acme: Tenant) -> None:
    tokens = {
        "tenant": client_of(acme).token,
        "saas": operator_token(["predict"]),
        "operator": operator_token(["admin"]),
    }
    services.set_suspended(tenant=acme, suspended=True, actor="tests")

    answers = {name: who(acme, secret) for name, secret in tokens.items()}
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "tenant": 403,
        "saas": 403,
        "operator": 200,
    }
    assert answers["tenant"].json()["error"]["code"] == "tenant_suspended"

    services.set_suspended(tenant=acme, suspended=False, actor="tests")
    assert who(acme, tokens["tenant"]).status_code == 200
    assert list(OperatorAudit.objects.filter(tenant_id="acme").values_list("action", flat=True)[:2]) == [
        "tenant.resume",
        "tenant.suspend",
    ]


def used_at(client: TenantClient) -> Any:
    uses.write()
    return ApiToken.objects.by_secret(client.token).get().last_used_at


def test_a_use_is_noted_at_most_once_a_minute(acme: Tenant) -> None:
    client = client_of(acme, "read")
    client.get("api/v1/whoami")
    first = used_at(client)
    assert first is not None
    client.get("api/v1/whoami")
    assert used_at(client) == first


def test_an_operator_shows_before_the_first_answer_and_later_without_keeping_anybody_waiting(
    acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uses, "NOTED_FOR_S", 0)
    secret = operator_token(["read"], acme)

    def lines() -> int:
        with tenant_scope(acme):
            return AuditEvent.objects.filter(action="operator.access").count()

    who(acme, secret)
    assert lines() == 1
    who(acme, secret)
    assert lines() == 1
    uses.write()
    assert lines() == 2


def test_what_the_database_cannot_take_is_written_later(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(acme, "read")
    client.get("api/v1/whoami")

    def away(*args: Any) -> None:
        raise OperationalError

    with monkeypatch.context() as patched:
        patched.setattr(uses, "_touch", away)
        with pytest.raises(OperationalError):
            uses.write()
    assert used_at(client) is not None
