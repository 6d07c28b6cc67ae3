"""The pages of a tenant's admin in a real browser, over the real stack, as admin, data scientist and viewer."""

import pickle
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect
from sklearn.linear_model import LogisticRegression

from clients.demo.platform import Tenant
from clients.screenshots.browser import NoBrowser, log_in, new_page, open_browser
from tests.acceptance.stack import Stack
from tests.admin.in_browser import listen

Enter = Callable[[str], Page]
WITHIN_MS = 60_000
ADMIN, SCIENTIST, VIEWER = "admin", "data_scientist", "viewer"
MODELS, VERSIONS = "admin/models_registry/registeredmodel", "admin/models_registry/modelversion"
FOCUSED = """() => {
  const [one, style] = [document.activeElement, getComputedStyle(document.activeElement)];
  const shown = one === document.body || style.outlineStyle !== "none" || style.boxShadow !== "none";
  return {words: one.textContent.trim(), shown: shown, html: one.outerHTML.slice(0, 300)};
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        with open_browser() as browser:
            yield browser
    except NoBrowser as error:
        pytest.skip(str(error))


@dataclass
class Place:
    """A tenant and the passwords of its members by their role. versions: their paths below its address."""

    tenant: Tenant
    passwords: dict[str, str]
    versions: list[str] = field(default_factory=list)

    def email(self, role: str) -> str:
        return f"{role}@{self.tenant.tenant_id}.example"


@pytest.fixture(scope="module")
def place(stack: Stack, browser: Browser) -> Place:
    """A tenant with a member of each role and two versions of a model, the first of which serves."""
    tenant_id = f"t-{uuid.uuid4().hex[:10]}"
    tenant, admin = stack.operator().tenant(tenant_id, "Acme")
    assert admin is not None
    place = Place(tenant, {ADMIN: admin["password"]})
    for role in (SCIENTIST, VIEWER):
        member = tenant.post("members", {"email": place.email(role), "role": role})
        place.passwords[role] = member["password"]
    tenant.ensure_model("churn", "# Who leaves\n\nA *card*.")
    for number in (1, 2):
        metadata = {"metrics": {"accuracy": 0.8 + number / 20}, "tags": {"team": "growth"}}
        tenant.upload("models/churn/versions", {"model.pkl": artifact(number)}, metadata=metadata)
    for number in (1, 2):
        assert tenant.inspected("churn", number)["state"] == "ready"
    tenant.post("models/churn/versions/1/activate")
    return place


def artifact(seed: int = 0) -> bytes:
    """A small classifier as a pickle."""
    rows = np.random.default_rng(seed).normal(size=(80, 3))
    return pickle.dumps(LogisticRegression().fit(rows, np.where(rows[:, 0] > 0, "stays", "leaves")))


@pytest.fixture
def enter(browser: Browser, place: Place) -> Iterator[Enter]:
    """`enter(role)`: a page of the tenant's admin with somebody of this role logged in.

    What the browser holds against a page fails the test: a script that fails, something that the page's policy refuses.
    """
    heard: list[list[str]] = []

    def enter(role: str) -> Page:
        page = new_page(browser)
        page.set_default_timeout(WITHIN_MS)
        heard.append(listen(page))
        log_in(page, place.tenant.base_url, place.email(role), place.passwords[role])
        return page

    yield enter
    assert not (complaints := [one for said in heard for one in said]), complaints


def at(place: Place, path: str) -> str:
    return f"{place.tenant.base_url}/{path}"


def open_version(page: Page, place: Place, number: int, model: str = "churn") -> None:
    page.goto(at(place, f"{VERSIONS}/?q={model}"))
    page.get_by_role("link", name=f"{model} v{number}", exact=True).click()


def submit(page: Page) -> None:
    page.locator("form.tny-ask button[type=submit]").click()


def test_an_admin_uploads_watches_activates_tries_and_rolls_back(enter: Enter, place: Place) -> None:
    page = enter(ADMIN)
    page.goto(at(place, f"{VERSIONS}/add/"))
    page.fill("[name=model]", "churn")
    page.fill("[name=metrics]", '{"accuracy": 0.97}')
    page.set_input_files("[name=file]", {"name": "m.pkl", "mimeType": "application/x", "buffer": artifact(3)})
    expect(page.locator(".tny-chosen")).to_contain_text("m.pkl")
    submit(page)

    page.wait_for_url(re.compile("/change/"))
    page.reload()  # what is shown lies on the server, so it survives this
    expect(page.get_by_role("heading", name="Inspection")).to_be_visible()
    expect(page.get_by_role("link", name="Activate")).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator("main, #main")).to_contain_text("LogisticRegression")
    expect(page.locator("#main")).to_contain_text("stays")

    page.get_by_role("link", name="Activate").click()
    expect(page.locator("#main")).to_contain_text("v1 serves now")
    expect(page.locator(".tny-beside")).to_contain_text("v3 then")
    page.fill("[name=reason]", "It is better.")
    submit(page)
    expect(page.locator("#main")).to_contain_text("churn v3 serves now.")

    page.get_by_role("link", name="Try it").click()
    submit(page)
    expect(page.locator(".tny-answers")).to_contain_text("Answered in")
    expect(page.get_by_role("img", name="Probabilities of the classes")).to_be_visible()
    assert "curl" in page.content()

    page.goto(at(place, f"{MODELS}/?q=churn"))
    page.get_by_role("link", name="churn", exact=True).click()
    expect(page.locator(".tny-timeline")).to_contain_text("It is better.")
    page.locator("summary", has_text="Serving").click()
    page.get_by_role("link", name="Roll back").click()
    expect(page.locator("#main")).to_contain_text("v1, which served before, serves again.")
    page.fill("[name=reason]", "It was worse.")
    submit(page)
    expect(page.locator("#main")).to_contain_text("v1 of churn serves again.")

    page.goto(at(place, "admin/"))
    expect(page.locator("#main")).to_contain_text("What serves")
    open_version(page, place, 3)
    page.get_by_role("link", name="Delete").click()
    submit(page)
    expect(page.locator("#main")).to_contain_text("churn v3 was deleted.")


def test_a_scientist_trains_on_a_table_watches_and_compares(enter: Enter, place: Place) -> None:
    page = enter(SCIENTIST)
    page.goto(at(place, "admin/training/dataset/add/"))
    page.fill("[name=name]", "customers")
    rows = "".join(f"{age},{'yes' if age > 45 else 'no'}\n" for age in range(18, 90))
    table = f"age,left\n{rows}".encode()
    page.set_input_files("[name=file]", {"name": "customers.csv", "mimeType": "text/csv", "buffer": table})
    submit(page)
    page.get_by_role("link", name="Train on it").click()
    page.fill("[name=target]", "left")
    page.fill("[name=model]", "trained")
    submit(page)
    expect(page.get_by_role("link", name="trained v1")).to_be_visible(timeout=WITHIN_MS)
    expect(page.get_by_role("heading", name="Confusion matrix")).to_be_visible()

    page.get_by_role("link", name="Run again").click()
    page.fill("[name='params.n_estimators']", "7")
    submit(page)
    expect(page.get_by_role("link", name="trained v2")).to_be_visible(timeout=WITHIN_MS)

    page.goto(at(place, "admin/training/run/"))
    for row in (0, 1):
        page.locator("input.action-select").nth(row).check()
    page.locator("select[name=action]").select_option("compare")
    page.get_by_title("Run the selected action").click()
    expect(page.locator("#main")).to_contain_text("trained v2")
    expect(page.locator(".tny-differs", has_text="n_estimators")).to_be_visible()


def test_a_token_is_shown_once_works_and_is_revoked(enter: Enter, place: Place) -> None:
    page = enter(ADMIN)
    page.goto(at(place, "admin/tenants/apitoken/add/"))
    page.fill("[name=name]", "laptop")
    page.check("[name=scopes][value=read]")
    submit(page)
    secret = page.locator(".tny-secret code").inner_text()
    asked = Tenant(place.tenant.base_url.rpartition("/t/")[0], place.tenant.tenant_id, secret)
    assert asked.get("whoami")["scopes"] == ["read"]

    page.goto(at(place, "admin/tenants/apitoken/"))
    assert secret not in page.content()
    page.get_by_role("link", name="laptop", exact=True).click()
    assert secret not in page.content()
    page.get_by_role("link", name="Revoke").click()
    submit(page)
    expect(page.locator("#main")).to_contain_text("no longer works")


@pytest.mark.parametrize("role", [SCIENTIST, VIEWER])
def test_what_a_role_may_not_do_is_absent_and_refused_when_forced(enter: Enter, place: Place, role: str) -> None:
    page = enter(role)
    may_upload = role == SCIENTIST
    expect(page.get_by_role("link", name="Tokens")).to_have_count(0)
    expect(page.get_by_role("link", name="Upload a version")).to_have_count(1 if may_upload else 0)
    open_version(page, place, 2)
    page.wait_for_url(re.compile("/change/"))
    for name, is_there in (("Activate", False), ("Delete", False), ("Edit", may_upload), ("Download", True)):
        assert bool(page.get_by_role("link", name=name, exact=True).count()) == is_there, name

    version = page.url.partition("change/")[0]
    token = next(one["value"] for one in page.context.cookies() if one["name"] == "csrftoken")
    headers = {"X-CSRFToken": token, "Referer": page.url}
    for address in (f"{version}activate/", f"{version}remove/", at(place, "admin/tenants/apitoken/add/")):
        assert page.request.post(address, headers=headers).status == 403, address
    forced = page.request.post(at(place, f"{VERSIONS}/add/"), headers=headers)
    assert forced.status == (200 if may_upload else 403)
    assert place.tenant.get("models/churn/versions/2")["state"] == "ready"


def test_the_keyboard_reaches_what_can_be_done_and_shows_where_it_is(enter: Enter, place: Place) -> None:
    page = enter(ADMIN)
    open_version(page, place, 2)
    seen = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        assert focused["shown"], focused
        seen.add(focused["words"])
        if "Activate" in focused["words"]:
            return
    raise AssertionError(f"'Activate' is not among {seen}")


def test_times_are_in_the_readers_zone(enter: Enter, place: Place) -> None:
    page = enter(ADMIN)
    moment = page.locator("time[datetime]").first
    hours = page.evaluate(
        "time => new Date(time.dateTime).toLocaleString('sv-SE', {timeZone: 'Europe/Berlin'}).slice(0, 16)",
        moment.element_handle(),
    )
    assert moment.inner_text() == hours
