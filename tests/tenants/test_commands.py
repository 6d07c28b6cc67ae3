"""The commands about tenants and tokens: their JSON, and their one sentence when something is not right."""

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tenants.models import Domain, Membership, Tenant, TenantState, User
from tests.clients import TenantClient


def run(name: str, *args: str) -> Any:
    out = io.StringIO()
    call_command(name, *args, "--json", stdout=out)
    return json.loads(out.getvalue())


def words(name: str, *args: str) -> str:
    out = io.StringIO()
    call_command(name, *args, stdout=out)
    return out.getvalue()


def test_provision_tenant_says_how_to_get_in(acme: Tenant) -> None:
    made = run("provision_tenant", "initech", "--name", "Initech", "--admin", "boss@initech.test")

    assert set(made) == {"tenantId", "admin", "token"}
    assert User.objects.get(email=made["admin"]["email"]).check_password(made["admin"]["password"])
    assert TenantClient("/t/initech", made["token"]).get("api/v1/whoami").json()["tenantId"] == "initech"


def test_list_tenants(acme: Tenant, globex: Tenant) -> None:
    Tenant.objects.filter(pk=globex.pk).update(state=TenantState.SUSPENDED)

    assert [one["tenantId"] for one in run("list_tenants")] == ["acme", "globex"]
    assert [one["tenantId"] for one in run("list_tenants", "--state", "suspended")] == ["globex"]
    assert "acme" in words("list_tenants")


def test_suspend_and_resume(acme: Tenant) -> None:
    assert run("suspend_tenant", "acme") == {"tenantId": "acme", "state": "suspended"}
    assert run("resume_tenant", "acme") == {"tenantId": "acme", "state": "active"}


def test_delete_tenant(acme: Tenant) -> None:
    words("provision_tenant", "initech", "--admin", "boss@initech.test")
    with pytest.raises(CommandError, match="repeat the tenantId"):
        run("delete_tenant", "initech", "--confirm", "acme")

    run("delete_tenant", "initech", "--confirm", "initech")
    assert not Tenant.objects.filter(tenant_id="initech").exists()


def test_a_token_is_issued_and_revoked_by_its_id_or_itself(acme: Tenant) -> None:
    for named_by in ("id", "token"):
        made = run("issue_token", "acme", "--scope", "read", "--scope", "predict", "--expires", "90d")
        client = TenantClient("/t/acme", made["token"])
        assert client.get("api/v1/whoami").json()["scopes"] == ["predict", "read"]

        run("revoke_token", made[named_by])
        assert client.get("api/v1/whoami").status_code == 401


def test_an_operator_token_lists_tenants_or_is_for_all(acme: Tenant, globex: Tenant) -> None:
    some = run("issue_operator_token", "--scope", "predict", "--tenant", "acme")["token"]
    every = run("issue_operator_token", "--scope", "predict", "--all-tenants")["token"]

    assert [TenantClient("/t/globex", token).get("api/v1/whoami").status_code for token in (some, every)] == [401, 200]
    with pytest.raises(CommandError, match="one of the two"):
        run("issue_operator_token", "--scope", "predict")


def test_a_domain_is_the_tenants_own(acme: Tenant) -> None:
    run("add_domain", "acme", "Models.Acme.test")

    assert Domain.objects.get().domain == "models.acme.test"
    assert TenantClient("").get("login", HTTP_HOST="models.acme.test").context["request"].tenant == acme
    with pytest.raises(CommandError, match="already"):
        run("add_domain", "acme", "models.acme.test")


def test_an_operator_adds_who_is_known(acme: Tenant, globex: Tenant) -> None:
    assert run("add_member", "acme", "admin@globex.test", "--role", "viewer")["password"] is None
    assert Membership.objects.filter(user__email="admin@globex.test").count() == 2


def test_a_reset_link_opens_a_form(acme: Tenant) -> None:
    link = run("reset_link", "admin@acme.test", "--base-url", "https://models.test/")["link"]

    assert link.startswith("https://models.test/reset/")
    assert TenantClient("").get(link.removeprefix("https://models.test")).status_code == 302


def test_createsuperuser_makes_an_operator(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "a quite long phrase")
    call_command("createsuperuser", "--noinput", "--email", "Root@Example.test", stdout=io.StringIO())

    operator = User.objects.get(email="root@example.test")
    assert operator.is_superuser
    assert operator.check_password("a quite long phrase")


def test_status_says_what_is_not_ready(db: None) -> None:
    out = io.StringIO()
    with pytest.raises(CommandError, match="queue_training"):
        call_command("status", "--json", stdout=out)

    body = json.loads(out.getvalue())
    assert body["ready"] is False
    assert body["parts"]["database"]["ready"] is True


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("suspend_tenant", "nobody"), "There is no tenant 'nobody'."),
        (("provision_tenant", "acme", "--admin", "a@b.test"), "There is a tenant 'acme' already."),
        (("provision_tenant", "new-one", "--admin", "nobody"), "'nobody' is not an email address."),
        (("issue_token", "acme", "--scope", "read", "--expires", "soon"), "A length of time is"),
        (("revoke_token", "tny_nonsense"), "There is no such token"),
        (("reset_link", "nobody@acme.test"), "There is nobody with this email address."),
    ],
)
def test_what_is_not_right_is_said_in_one_sentence(acme: Tenant, command: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(CommandError) as caught:
        run(*command)

    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
