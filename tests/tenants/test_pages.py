"""Logging in and out, passwords, and what is answered where nothing is."""

from typing import Any

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.core.cache import cache
from django.db import OperationalError
from django.http import HttpRequest

from common.errors import Throttled
from tenants import login
from tenants.models import Membership, Role, Tenant, User
from tests.clients import TenantClient, client_of

PASSWORD = "correct horse battery"


FULL_ITERATIONS = 2000


@pytest.fixture(autouse=True)
def _no_attempts_before(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.clear()
    monkeypatch.setattr(PBKDF2PasswordHasher, "iterations", FULL_ITERATIONS)  # a real hash takes a third of a second


@pytest.fixture
def member(acme: Tenant) -> User:
    user = User.objects.create_user("ada@acme.test", PASSWORD)
    Membership.objects.create(tenant=acme, user=user, role=Role.VIEWER)
    return user


def log_in(base_path: str, email: str, password: str = PASSWORD, **data: str) -> tuple[TenantClient, Any]:
    browser = TenantClient(base_path, enforce_csrf_checks=True)
    browser.get("login")
    data |= {"username": email, "password": password, "csrfmiddlewaretoken": browser.cookies["csrftoken"].value}
    return browser, browser.post("login", data)


def test_a_member_logs_in_and_out(member: User) -> None:
    browser, response = log_in("/t/acme", "Ada@acme.test")
    assert (response.status_code, response["Location"]) == (302, "/t/acme/")
    assert b"ada@acme.test" in browser.get("").content

    assert browser.get("logout").status_code == 405
    token = browser.cookies["csrftoken"].value
    assert browser.post("logout", {"csrfmiddlewaretoken": token})["Location"] == "/t/acme/login"
    assert browser.get("")["Location"] == "/t/acme/login?next=/t/acme/"


def test_a_login_without_its_csrf_token_is_refused(member: User) -> None:
    browser = TenantClient("/t/acme", enforce_csrf_checks=True)
    response = browser.post("login", {"username": member.email, "password": PASSWORD})

    assert response.status_code == 403


def test_who_is_no_member_is_answered_as_if_the_password_were_wrong(member: User, globex: Tenant) -> None:
    _, stranger = log_in("/t/globex", member.email)
    _, wrong = log_in("/t/globex", "admin@globex.test", "wrong")
    _, unknown = log_in("/t/globex", "nobody@globex.test")

    assert stranger.status_code == wrong.status_code == unknown.status_code == 200
    for response in (stranger, wrong, unknown):
        assert b"Please enter a correct email" in response.content


@pytest.mark.parametrize("target", ["https://evil.test/", "//evil.test/", "javascript:alert(1)", "http:///evil.test"])
def test_next_leads_to_this_host_only(member: User, target: str) -> None:
    _, response = log_in("/t/acme", member.email, next=target)

    assert response["Location"] == "/t/acme/"


def test_next_is_followed_here(member: User) -> None:
    _, response = log_in("/t/acme", member.email, next="/t/acme/docs")

    assert response["Location"] == "/t/acme/docs"


def test_guessing_is_slowed_down_for_the_account_from_that_address(member: User) -> None:
    for _ in range(login.MOST_PER_ACCOUNT_AND_ADDRESS):
        assert log_in("/t/acme", member.email, "guess")[1].status_code == 200
    _, response = log_in("/t/acme", member.email)

    assert (response.status_code, response["Retry-After"]) == (429, "900")
    assert b"Too many attempts" in response.content
    assert log_in("/t/acme", "admin@acme.test", "guess")[1].status_code == 200


def test_guessing_many_accounts_from_one_address_is_slowed_down(member: User) -> None:
    for number in range(login.MOST_PER_ADDRESS):
        login.count_attempt(_request("198.51.100.7"), f"user{number}@acme.test")

    with pytest.raises(Throttled):
        login.count_attempt(_request("198.51.100.7"), member.email)
    login.count_attempt(_request("198.51.100.8"), member.email)


def test_the_right_password_begins_the_count_anew(member: User) -> None:
    for _ in range(3):
        for _ in range(login.MOST_PER_ACCOUNT_AND_ADDRESS - 1):
            log_in("/t/acme", member.email, "guess")
        assert log_in("/t/acme", member.email)[1].status_code == 302


def test_a_first_password_is_hashed_in_full_at_its_first_use(acme: Tenant) -> None:
    user, password = User.objects.create_with_random_password("new@acme.test")
    Membership.objects.create(tenant=acme, user=user)
    assert user.password.startswith("pbkdf2_sha256$1000$")

    assert log_in("/t/acme", user.email, password)[1].status_code == 302
    user.refresh_from_db()
    assert user.password.startswith(f"pbkdf2_sha256${FULL_ITERATIONS}$")


def test_a_changed_password_ends_other_sessions(member: User) -> None:
    here, _ = log_in("/t/acme", member.email)
    there, _ = log_in("/t/acme", member.email)
    form = {"old_password": PASSWORD, "new_password1": "another long phrase", "new_password2": "another long phrase"}
    changed = here.post("password", form | {"csrfmiddlewaretoken": here.cookies["csrftoken"].value})

    assert changed["Location"] == "/t/acme/password/done"
    assert here.get("").status_code == 200
    assert there.get("").status_code == 302


def test_a_session_reads_the_api_and_writes_with_its_csrf_token(acme: Tenant) -> None:
    admin = User.objects.get(email="admin@acme.test")
    admin.set_password(PASSWORD)
    admin.save()
    browser, _ = log_in("/t/acme", admin.email)
    body = {"name": "x"}

    assert browser.get("api/v1/settings").status_code == 200
    refused = browser.patch_json("api/v1/settings", body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "csrf_failed")
    token = browser.cookies["csrftoken"].value
    assert browser.patch_json("api/v1/settings", body, HTTP_X_CSRFTOKEN=token).status_code == 200


def test_the_main_host_lists_a_persons_tenants(member: User, globex: Tenant) -> None:
    browser, response = log_in("", member.email)
    page = browser.get("").content.decode()

    assert response["Location"] == "/"
    assert "/t/acme/" in page
    assert "/t/globex/" not in page


def test_a_suspended_tenants_pages_say_so(member: User, acme: Tenant) -> None:
    browser, _ = log_in("/t/acme", member.email)
    Tenant.objects.filter(pk=acme.pk).update(state="suspended")
    page = browser.get("")

    assert page.status_code == 403
    assert b"suspended" in page.content


@pytest.mark.parametrize("base", ["", "/t/acme"])
def test_what_is_not_there_is_json_to_programs_and_a_page_to_people(base: str, acme: Tenant) -> None:
    client = client_of(acme)
    client.base_path = base
    api, page = client.get("api/v1/nothing"), client.get("nothing")

    assert (api.status_code, api.json()["error"]["code"]) == (404, "not_found")
    assert (page.status_code, page["Content-Type"]) == (404, "text/html; charset=utf-8")


def test_a_bug_says_its_request_id_and_nothing_else(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr("tenants.api.current_tenant", broken)
    response = client_of(acme).get("api/v1/settings", HTTP_X_REQUEST_ID="request-12345678")

    assert response.status_code == 500
    error = response.json()["error"]
    assert (error["code"], error["request_id"]) == ("internal_error", "request-12345678")
    assert "secret" not in response.content.decode()
    assert response["X-Request-ID"] == "request-12345678"


@pytest.mark.parametrize(("path", "kind"), [("api/v1/models", "application/json"), ("login", "text/html")])
def test_a_database_that_is_away_is_503(acme: Tenant, monkeypatch: pytest.MonkeyPatch, path: str, kind: str) -> None:
    client = client_of(acme)
    monkeypatch.setattr("tenants.middleware.tenant_of", _no_database)
    response = client.get(path)

    assert (response.status_code, response["Retry-After"]) == (503, "2")
    assert response["Content-Type"].startswith(kind)
    client.base_path = ""
    assert client.get("healthz").status_code == 200


def test_pages_have_no_inline_styles_or_scripts(member: User) -> None:
    browser, _ = log_in("/t/acme", member.email)
    for path in ("", "login", "password", "password/done", "reset/x/y", "reset/done", "docs", "nothing"):
        page = browser.get(path).content.decode()
        assert "<style" not in page
        assert "style=" not in page
        assert "<script>" not in page
        assert "://" not in page.replace("http://testserver", "").replace("http://www.w3.org", "")


def _no_database(request: HttpRequest) -> None:
    raise OperationalError("the server closed the connection")


def _request(address: str) -> Any:
    from django.test import RequestFactory

    return RequestFactory().get("/login", REMOTE_ADDR=address)
