"""Files that are sent to where nobody knows yet who sends them."""

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from models_registry import spooling
from tenants.models import Membership, Role, Tenant, User
from tests.clients import TenantClient, client_of

CSRF = "c" * 32
ADD = "admin/models_registry/modelversion/add/"


@pytest.fixture
def spooled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the files that were received."""
    paths: list[str] = []
    made = spooling.SpooledUpload.__init__

    def noted(self: Any, path: str, *args: Any) -> None:
        paths.append(path)
        made(self, path, *args)

    monkeypatch.setattr(spooling.SpooledUpload, "__init__", noted)
    return paths


def browser(tenant: Tenant, role: str = "", at: str = "") -> TenantClient:
    """A member's browser, or that of a stranger; its requests need their CSRF token, as real ones do."""
    client = TenantClient(at or tenant.base_path, enforce_csrf_checks=True)
    if role:
        user = User.objects.create(email=f"{role}@up.test")
        Membership.objects.create(tenant=tenant, user=user, role=role)
        client.force_login(user)
    client.cookies["csrftoken"] = CSRF
    return client


def form(size: int = 10) -> dict[str, Any]:
    file = SimpleUploadedFile("model.pkl", b"x" * size)
    return {"csrfmiddlewaretoken": CSRF, "model": "churn", "file": file}


@pytest.mark.parametrize("path", ["login", "admin/", ADD, "logout"])
def test_a_strangers_files_are_not_received(acme: Tenant, spooled: list[str], path: str) -> None:
    assert browser(acme).post(path, form(1 << 20)).status_code == 400
    assert browser(acme, at="/").post(path, form()).status_code in (400, 404)  # on the operator's surface
    assert spooled == []


def test_files_without_a_csrf_cookie_are_not_received_either(acme: Tenant, spooled: list[str]) -> None:
    stranger = TenantClient(acme.base_path, enforce_csrf_checks=True)

    response = stranger.post("login", form())

    assert response.status_code == 403
    assert "go back, reload and try again" in response.content.decode()  # the platform's own page
    assert spooled == []


def test_a_members_files_are_received_where_the_member_may_write(acme: Tenant, spooled: list[str]) -> None:
    assert browser(acme, Role.VIEWER).post(ADD, form()).status_code == 400
    assert spooled == []
    assert browser(acme, Role.DATA_SCIENTIST).post(ADD, form()).status_code == 302
    assert spooled == ["model.pkl"]


def test_a_member_of_another_tenant_is_a_stranger(acme: Tenant, globex: Tenant, spooled: list[str]) -> None:
    assert browser(globex, Role.ADMIN, at=acme.base_path).post(ADD, form()).status_code == 400
    assert spooled == []


def test_a_suspended_tenants_member_uploads_nothing(acme: Tenant, spooled: list[str]) -> None:
    Tenant.objects.filter(pk=acme.pk).update(state="suspended")

    assert browser(acme, Role.ADMIN).post(ADD, form()).status_code == 400
    assert spooled == []


def test_what_is_too_large_is_refused_by_what_it_announces(acme: Tenant, spooled: list[str]) -> None:
    Tenant.objects.filter(pk=acme.pk).update(max_artifact_bytes=1000)

    response = browser(acme, Role.ADMIN).post(ADD, form(5 << 20))

    assert response.status_code == 413
    assert "uploads have at most 1000" in response.content.decode()
    assert spooled == []


@pytest.mark.parametrize("path", ["api/v1/models", "api/v1/members"])
def test_a_sessions_files_are_not_received_where_json_is_asked_for(acme: Tenant, spooled: list[str], path: str) -> None:
    assert browser(acme, Role.ADMIN).post(path, form()).status_code == 413
    assert client_of(acme).post(path, form()).status_code == 415
    assert spooled == []


def test_a_session_uploads_through_the_api_with_its_token_in_the_header(acme: Tenant, spooled: list[str]) -> None:
    scientist, table = browser(acme, Role.DATA_SCIENTIST), SimpleUploadedFile("t.csv", b"a,b\n1,2\n3,4\n")
    scientist.post_json("api/v1/models", {"name": "churn"}, HTTP_X_CSRFTOKEN=CSRF)
    versions = "api/v1/models/churn/versions"

    assert scientist.post("api/v1/datasets", {"name": "t", "file": table}).status_code == 403
    assert spooled == []
    table.seek(0)
    uploads = {"api/v1/datasets": {"name": "t", "file": table}, versions: {"file": SimpleUploadedFile("m.pkl", b"x")}}
    for path, body in uploads.items():
        assert scientist.post(path, body, HTTP_X_CSRFTOKEN=CSRF).status_code in (201, 202), path
    assert spooled == ["t.csv", "m.pkl"]
