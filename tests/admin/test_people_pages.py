"""Members, tokens and the audit trail by the pages of a tenant's admin."""

import re
from typing import Any

import pytest

from tenants.journal.models import AuditEvent
from tenants.models import ApiToken, Membership, Tenant, User
from tenants.scope import tenant_scope
from tests.clients import TenantClient

MEMBERS, TOKENS = "admin/tenants/membership", "admin/tenants/apitoken"


@pytest.fixture
def admin(here: Tenant, logged_in: Any) -> TenantClient:
    client: TenantClient = logged_in(here, "admin")
    return client


def secret_in(response: Any) -> str:
    found = re.search(r"<code>([^<]+)</code>", response.content.decode())
    assert found
    return found[1]


def test_a_tokens_secret_is_shown_once(admin: TenantClient, here: Tenant) -> None:
    response = admin.post(f"{TOKENS}/add/", {"name": "ci", "scopes": ["read", "predict"], "expires": "30"})
    secret = secret_in(response)

    token = ApiToken.objects.by_secret(secret).get()
    assert (token.tenant, token.name, token.scopes, token.created_by) == (
        here,
        "ci",
        ["predict", "read"],
        "admin@acme.test",
    )
    assert token.expires_at is not None
    assert "no-store" in response["Cache-Control"]
    assert secret not in str(admin.cookies)
    for path in (f"{TOKENS}/", f"{TOKENS}/{token.pk}/change/", "admin/journal/auditevent/"):
        assert secret not in admin.get(path).content.decode()
    assert AuditEvent.objects.filter(action="token.issue", target="ci").exists()


def test_a_revoked_token_no_longer_works(admin: TenantClient, here: Tenant, client_for: Any) -> None:
    program = client_for(here)
    token = ApiToken.objects.by_secret(program.token).get()
    assert program.get("api/v1/models").status_code == 200
    admin.post(f"{TOKENS}/{token.pk}/revoke/")
    assert program.get("api/v1/models").status_code == 401
    with tenant_scope(here):
        assert AuditEvent.objects.filter(action="token.revoke", actor="admin@acme.test").exists()
    assert "/revoke/" not in admin.get(f"{TOKENS}/{token.pk}/change/").content.decode()


def test_only_the_tenants_own_tokens_and_members_are_listed(admin: TenantClient, globex: Tenant) -> None:
    ApiToken.mint(name="theirs", tenant=globex, scopes=["admin"])
    ApiToken.mint(name="operators", all_tenants=True, scopes=["admin"])
    tokens = admin.get(f"{TOKENS}/").content.decode()
    assert "theirs" not in tokens
    assert "operators" not in tokens
    assert "admin@globex.test" not in admin.get(f"{MEMBERS}/").content.decode()


def test_a_new_member_logs_in_with_the_password_that_is_shown(admin: TenantClient, here: Tenant) -> None:
    response = admin.post(f"{MEMBERS}/add/", {"email": "ada@acme.test", "role": "data_scientist"})
    password = secret_in(response)
    client = TenantClient(here.base_path)
    assert client.login(username="ada@acme.test", password=password)
    assert client.get("admin/").status_code == 200
    assert Membership.objects.get(user__email="ada@acme.test").role == "data_scientist"
    with tenant_scope(here):
        assert AuditEvent.objects.filter(action="member.add", target="ada@acme.test").exists()


def test_roles_change_and_the_last_admin_stays(admin: TenantClient, here: Tenant) -> None:
    admin.post(f"{MEMBERS}/add/", {"email": "ada@acme.test", "role": "viewer"})
    ada = Membership.objects.get(user__email="ada@acme.test")
    admin.post(f"{MEMBERS}/{ada.pk}/role/", {"role": "data_scientist"})
    ada.refresh_from_db()
    assert ada.role == "data_scientist"

    Membership.objects.filter(tenant=here, role="admin").exclude(user__email="admin@acme.test").delete()
    last = Membership.objects.get(tenant=here, role="admin")
    assert "last admin" in admin.post(f"{MEMBERS}/{last.pk}/remove/").content.decode()
    admin.post(f"{MEMBERS}/{ada.pk}/remove/")
    assert not Membership.objects.filter(pk=ada.pk).exists()
    assert User.objects.filter(email="ada@acme.test").exists()


def test_a_reset_link_opens_below_the_tenants_address(admin: TenantClient, here: Tenant) -> None:
    admin.post(f"{MEMBERS}/add/", {"email": "ada@acme.test", "role": "viewer"})
    ada = Membership.objects.get(user__email="ada@acme.test")
    link = secret_in(admin.post(f"{MEMBERS}/{ada.pk}/reset-link/"))
    assert link.startswith("http://testserver/t/acme/reset/")
    opened = TenantClient(here.base_path).get(link.removeprefix("http://testserver/t/acme/"))
    assert opened.status_code == 302
    assert "set-password" in opened["Location"]


def test_the_audit_trail_is_read_and_never_written(admin: TenantClient) -> None:
    admin.post(f"{TOKENS}/add/", {"name": "ci", "scopes": ["read"], "expires": "30"})
    event = AuditEvent.objects.get(action="token.issue")
    assert "token.issue" in admin.get("admin/journal/auditevent/").content.decode()
    admin.raise_request_exception = False
    assert admin.post(f"admin/journal/auditevent/{event.pk}/change/", {"actor": "x"}).status_code == 405
    assert admin.get("admin/journal/auditevent/add/").status_code in (403, 404)
