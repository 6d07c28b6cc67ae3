"""The operator's pages: tenants, operator tokens, people and jobs of the whole platform."""

import re
from typing import Any

import pytest
from django.db import connection

from tenants import services
from tenants.models import ApiToken, Job, JobState, Membership, OperatorAudit, Tenant, TenantState
from tests.clients import TenantClient

TENANTS, TOKENS = "admin/tenants/tenant", "admin/tenants/apitoken"


@pytest.fixture
def operator(db: None, logged_in: Any) -> TenantClient:
    client: TenantClient = logged_in()
    return client


def secrets_in(response: Any) -> list[str]:
    return re.findall(r"<code>([^<]+)</code>", response.content.decode())


def test_a_tenant_is_provisioned_and_its_admin_logs_in(operator: TenantClient) -> None:
    form = {
        "tenant_id": "initech",
        "name": "Initech",
        "admin_email": "bill@initech.test",
        "storage_alias": "database",
    }
    password, token = secrets_in(operator.post(f"{TENANTS}/add/", form))

    tenant = Tenant.objects.get(tenant_id="initech")
    assert (tenant.name, tenant.storage_alias) == ("Initech", "database")
    admin = TenantClient(tenant.base_path)
    assert admin.login(username="bill@initech.test", password=password)
    assert admin.get("admin/").status_code == 200
    assert TenantClient(tenant.base_path, token).get("api/v1/models").status_code == 200
    assert OperatorAudit.objects.filter(action="tenant.provision", tenant_id="initech").exists()


@pytest.mark.parametrize(("tenant_id", "told"), [("admin", "is none of"), ("acme", "There is a tenant")])
def test_a_refused_tenant_is_not_made(operator: TenantClient, acme: Tenant, tenant_id: str, told: str) -> None:
    form = {"tenant_id": tenant_id, "name": "X", "admin_email": "x@x.test", "storage_alias": "database"}
    before = Tenant.objects.count()
    assert told in operator.post(f"{TENANTS}/add/", form).content.decode()
    assert Tenant.objects.count() == before


def test_a_tenant_is_suspended_and_resumed(operator: TenantClient, acme: Tenant) -> None:
    operator.post(f"{TENANTS}/{acme.pk}/suspend/")
    acme.refresh_from_db()
    assert acme.state == TenantState.SUSPENDED
    page = operator.get(f"{TENANTS}/{acme.pk}/change/").content.decode()
    assert "/resume/" in page
    assert "/suspend/" not in page
    operator.post(f"{TENANTS}/{acme.pk}/resume/")
    acme.refresh_from_db()
    assert acme.is_active
    actions = OperatorAudit.objects.filter(tenant_id="acme", actor="operator:operator@platform.test")
    assert set(actions.values_list("action", flat=True)) == {"tenant.suspend", "tenant.resume"}


def test_quotas_and_storage_are_changed(operator: TenantClient, acme: Tenant) -> None:
    form = {
        "name": "Acme Ltd",
        "storage_alias": "filesystem",
        "max_artifact_bytes": 10,
        "max_storage_bytes": 20,
        "max_dataset_bytes": 30,
        "max_open_runs": 3,
        "max_running_runs": 2,
        "max_run_seconds": 60,
        "max_run_cpu_seconds": 90,
        "max_run_memory_bytes": 1 << 30,
    }
    operator.post(f"{TENANTS}/{acme.pk}/edit/", form)
    acme.refresh_from_db()
    assert {name: getattr(acme, name) for name in form} == form


def test_deleting_a_tenant_needs_its_id_typed(operator: TenantClient) -> None:
    made = services.provision_tenant(tenant_id="short-lived", name="S", admin_email="s@s.test", actor="tests").tenant
    path = f"{TENANTS}/{made.pk}/remove/"
    assert "repeat the tenantId" in operator.post(path, {"confirm": "short"}).content.decode()
    assert Tenant.objects.filter(pk=made.pk).exists()

    assert operator.post(path, {"confirm": "short-lived"}).status_code == 302
    assert not Tenant.objects.filter(pk=made.pk).exists()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [made.schema_name])
        assert cursor.fetchone() is None
    assert OperatorAudit.objects.filter(action="tenant.delete", tenant_id="short-lived").exists()


def test_an_operator_adds_a_member(operator: TenantClient, acme: Tenant, globex: Tenant) -> None:
    operator.post(f"{TENANTS}/{acme.pk}/members/", {"email": "admin@globex.test", "role": "viewer"})
    assert Membership.objects.get(tenant=acme, user__email="admin@globex.test").role == "viewer"


def test_an_operator_token_lists_its_tenants(operator: TenantClient, acme: Tenant, globex: Tenant) -> None:
    form = {"name": "app", "scopes": ["predict"], "expires": "90", "tenants": [str(acme.pk)]}
    (secret,) = secrets_in(operator.post(f"{TOKENS}/add/", form))
    token = ApiToken.objects.by_secret(secret).get()
    assert (token.tenant, list(token.tenants.all()), token.all_tenants) == (None, [acme], False)
    assert "one of the two" in operator.post(f"{TOKENS}/add/", form | {"all_tenants": "on"}).content.decode()

    operator.post(f"{TOKENS}/{token.pk}/revoke/")
    assert not ApiToken.objects.usable().filter(pk=token.pk).exists()
    actions = OperatorAudit.objects.filter(action__startswith="operator_token").values_list("action", flat=True)
    assert set(actions) == {"operator_token.issue", "operator_token.revoke"}


def test_a_tenants_own_tokens_are_not_the_operators_to_list(operator: TenantClient, acme: Tenant) -> None:
    token = ApiToken.objects.filter(tenant=acme).latest("created_at")
    operator.raise_request_exception = False
    assert operator.get(f"{TOKENS}/{token.pk}/change/").status_code == 404


def test_jobs_are_filtered_and_the_oldest_shows_on_the_home(
    operator: TenantClient, acme: Tenant, globex: Tenant
) -> None:
    oldest = Job.objects.create(tenant=acme, kind="training.run", object_id="1")
    Job.objects.create(tenant=globex, kind="models_registry.inspect", object_id="2", state=JobState.FAILED)
    home = operator.get("admin/").content.decode()
    assert f"/admin/tenants/job/{oldest.pk}/change/" in home
    assert "models_registry.inspect" in home

    failed = operator.get("admin/tenants/job/?state__exact=failed").content.decode()
    assert str(oldest.pk) not in failed
    own = operator.get(f"admin/tenants/job/?tenant__uuid__exact={acme.pk}").content.decode()
    assert str(oldest.pk) in own
    operator.raise_request_exception = False
    assert operator.get("admin/tenants/job/add/").status_code in (403, 404)


def test_a_tenants_page_shows_what_it_keeps(operator: TenantClient, acme: Tenant) -> None:
    page = operator.get(f"{TENANTS}/{acme.pk}/change/").content.decode()
    assert "of 100.0" in page
    assert "admin@acme.test" in page


def test_an_operator_makes_a_reset_link_for_a_member(operator: TenantClient, acme: Tenant) -> None:
    user = Membership.objects.get(tenant=acme, user__email="admin@acme.test").user
    (link,) = secrets_in(operator.post(f"admin/tenants/user/{user.pk}/reset-link/"))
    assert link.startswith("http://testserver/t/acme/reset/")
