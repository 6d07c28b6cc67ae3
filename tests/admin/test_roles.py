"""What each role finds in a tenant's admin, and what it is refused when it asks all the same."""

from typing import Any

import pytest
from django.urls import reverse

from models_registry.models import Deployment, ModelVersion, RegisteredModel
from tenants.models import ApiToken, Membership, Tenant, TenantState
from tenants.scope import tenant_scope
from tests.clients import TenantClient

VIEWER, SCIENTIST, ADMIN = "viewer", "data_scientist", "admin"
ROLES = (VIEWER, SCIENTIST, ADMIN)

# The pages below admin/, and the roles that they open to.
PAGES: dict[str, tuple[str, ...]] = {
    "": ROLES,
    "models_registry/registeredmodel/": ROLES,
    "models_registry/registeredmodel/{model}/change/": ROLES,
    "models_registry/registeredmodel/add/": (SCIENTIST, ADMIN),
    "models_registry/registeredmodel/{model}/edit/": (SCIENTIST, ADMIN),
    "models_registry/registeredmodel/{model}/rollback/": (ADMIN,),
    "models_registry/registeredmodel/{model}/deactivate/": (ADMIN,),
    "models_registry/registeredmodel/{model}/activate-best/": (ADMIN,),
    "models_registry/registeredmodel/{model}/alias/": (ADMIN,),
    "models_registry/registeredmodel/{model}/remove/": (ADMIN,),
    "models_registry/modelversion/": ROLES,
    "models_registry/modelversion/{version}/change/": ROLES,
    "models_registry/modelversion/{version}/download/": ROLES,
    "models_registry/modelversion/{version}/files/": ROLES,
    "models_registry/modelversion/add/": (SCIENTIST, ADMIN),
    "models_registry/modelversion/{version}/edit/": (SCIENTIST, ADMIN),
    "models_registry/modelversion/{version}/activate/": (ADMIN,),
    "models_registry/modelversion/{version}/remove/": (ADMIN,),
    "training/run/": ROLES,
    "training/run/add/": (SCIENTIST, ADMIN),
    "training/dataset/": ROLES,
    "training/dataset/add/": (SCIENTIST, ADMIN),
    "tenants/membership/": (ADMIN,),
    "tenants/membership/add/": (ADMIN,),
    "tenants/apitoken/": (ADMIN,),
    "tenants/apitoken/add/": (ADMIN,),
    "journal/auditevent/": (ADMIN,),
    "journal/auditevent/export/": (ADMIN,),
    "usage/": ROLES,
    "settings/": (ADMIN,),
    "models_registry/registeredmodel/{model}/deployment/": (ADMIN,),
    # What Django's admin would do by itself is shut to everybody.
    "models_registry/modelversion/{version}/delete/": (),
    "models_registry/modelversion/{version}/history/": (),
    "tenants/membership/{member}/delete/": (),
}


@pytest.fixture
def version(here: Tenant, make_version: Any) -> ModelVersion:
    made: ModelVersion = make_version()
    return made


def paths(version: ModelVersion, tenant: Tenant) -> dict[str, str]:
    member = Membership.objects.filter(tenant=tenant).values_list("pk", flat=True)[0]
    names = {"model": version.model_id, "version": version.pk, "member": member}
    return {route: f"admin/{route.format(**names)}" for route in PAGES}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_opens_its_pages_and_no_others(role: str, acme: Tenant, version: ModelVersion, logged_in: Any) -> None:
    client: TenantClient = logged_in(acme, role)
    client.raise_request_exception = False
    statuses = {route: client.get(path).status_code for route, path in paths(version, acme).items()}

    opened = {route for route, status in statuses.items() if status in (200, 302)}
    assert opened == {route for route, roles in PAGES.items() if role in roles}
    assert {status for route, status in statuses.items() if route not in opened} <= {403, 404}


def test_an_operator_opens_what_an_admin_opens(acme: Tenant, version: ModelVersion, logged_in: Any) -> None:
    client = logged_in(at=acme)
    client.raise_request_exception = False
    opened = {route for route, path in paths(version, acme).items() if client.get(path).status_code in (200, 302)}
    assert opened == {route for route, roles in PAGES.items() if ADMIN in roles}


@pytest.mark.parametrize("role", [VIEWER, SCIENTIST])
def test_what_a_role_may_not_do_is_neither_offered_nor_done(
    role: str, acme: Tenant, version: ModelVersion, logged_in: Any
) -> None:
    client = logged_in(acme, role)
    page = client.get(f"admin/models_registry/modelversion/{version.pk}/change/").content.decode()
    assert "/activate/" not in page
    assert "/remove/" not in page
    assert ("/edit/" in page) == (role == SCIENTIST)

    client.raise_request_exception = False
    for action in ("activate", "remove"):
        assert client.post(f"admin/models_registry/modelversion/{version.pk}/{action}/").status_code == 403
    assert not Deployment.objects.exists()
    assert ModelVersion.objects.filter(pk=version.pk).exists()


def test_a_viewer_cannot_force_an_upload_nor_issue_a_token(acme: Tenant, here: Tenant, logged_in: Any) -> None:
    client = logged_in(acme, VIEWER)
    client.raise_request_exception = False
    tokens = ApiToken.objects.count()
    assert client.post("admin/models_registry/modelversion/add/", {"model": "churn"}).status_code == 403
    assert client.post("admin/tenants/apitoken/add/", {"name": "mine", "scopes": "admin"}).status_code == 403
    assert not RegisteredModel.objects.exists()
    assert ApiToken.objects.count() == tokens


def test_who_is_not_logged_in_is_sent_to_the_login_page(acme: Tenant) -> None:
    client = TenantClient(acme.base_path)
    response = client.get("admin/models_registry/modelversion/")
    assert response.status_code == 302
    login = client.get(response["Location"].removeprefix("/t/acme/"))
    assert login["Location"] == "/t/acme/login?next=%2Ft%2Facme%2Fadmin%2Fmodels_registry%2Fmodelversion%2F"


def test_a_member_of_another_tenant_is_not_logged_in_here(
    acme: Tenant, globex: Tenant, version: ModelVersion, logged_in: Any
) -> None:
    client = logged_in(globex, ADMIN, at=acme)
    for path in paths(version, acme).values():
        response = client.get(path)
        assert response.status_code == 302
        assert "login" in response["Location"]


def test_an_object_of_another_tenant_is_not_there(
    acme: Tenant, globex: Tenant, make_version: Any, logged_in: Any
) -> None:
    with tenant_scope(globex):
        theirs = make_version("theirs")
    member = Membership.objects.filter(tenant=globex).values_list("pk", flat=True)[0]
    token = ApiToken.objects.filter(tenant=globex).values_list("pk", flat=True)[0]
    client = logged_in(acme, ADMIN)
    client.raise_request_exception = False
    for path in (
        f"models_registry/modelversion/{theirs.pk}/change/",
        f"models_registry/modelversion/{theirs.pk}/activate/",
        f"models_registry/registeredmodel/{theirs.model_id}/change/",
        f"tenants/membership/{member}/change/",
        f"tenants/membership/{member}/remove/",
        f"tenants/apitoken/{token}/change/",
        f"tenants/apitoken/{token}/revoke/",
    ):
        assert client.get(f"admin/{path}").status_code == 404, path
        assert client.post(f"admin/{path}").status_code in (404, 405), path
    assert ApiToken.objects.get(pk=token).revoked_at is None


def test_a_token_opens_no_page(acme: Tenant, client_for: Any) -> None:
    assert client_for(acme).get("admin/").status_code == 302


def test_members_of_a_suspended_tenant_stay_outside_and_operators_do_not(acme: Tenant, logged_in: Any) -> None:
    Tenant.objects.filter(pk=acme.pk).update(state=TenantState.SUSPENDED)
    assert logged_in(acme, ADMIN).get("admin/").status_code == 302
    assert logged_in(at=acme).get("admin/").status_code == 200


def test_the_operators_site_is_for_operators_on_the_main_host(acme: Tenant, logged_in: Any) -> None:
    member = logged_in(acme, ADMIN)
    member.base_path = ""
    assert member.get("admin/tenants/tenant/").status_code == 302
    assert logged_in().get("admin/tenants/tenant/").status_code == 200
    operator_below_a_tenant = logged_in(at=acme)
    operator_below_a_tenant.raise_request_exception = False
    assert operator_below_a_tenant.get("admin/tenants/tenant/").status_code == 404


def test_logging_out_ends_the_session(acme: Tenant, logged_in: Any) -> None:
    client = logged_in(acme, VIEWER)
    assert client.post("admin/logout/")["Location"] == "/t/acme/login"
    assert client.get("admin/").status_code == 302


def test_search_keeps_no_answers_for_other_tenants(acme: Tenant, logged_in: Any) -> None:
    client = logged_in(acme, ADMIN)
    client.raise_request_exception = False
    with tenant_scope(acme):
        assert client.get("admin/search/?s=model").status_code == 404
    assert reverse("admin:index")  # the sites' names resolve on the main host, too
