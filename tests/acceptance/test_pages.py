"""The pages of a tenant's admin in a real browser, over the real stack, as admin, data scientist and viewer."""

import pickle
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Page, expect
from sklearn.linear_model import LogisticRegression

from clients.demo.platform import Tenant
from clients.screenshots.browser import NoBrowser, log_in, new_page, open_browser
from tests.acceptance.stack import Stack

WITHIN_MS = 60_000
ADMIN, SCIENTIST, VIEWER = "admin", "data_scientist", "viewer"
MODELS, VERSIONS = "admin/models_registry/registeredmodel", "admin/models_registry/modelversion"
LONG = "a-very-long-name." * 5
FOCUSED = """() => {
  const [one, style] = [document.activeElement, getComputedStyle(document.activeElement)];
  const shown = one === document.body || style.outlineStyle !== "none" || style.boxShadow !== "none";
  return {words: one.textContent.trim(), shown: shown, html: one.outerHTML.slice(0, 300)};
}"""
SERIOUS = ("serious", "critical")
PAGES = (
    "",
    f"{MODELS[6:]}/",
    f"{VERSIONS[6:]}/",
    f"{VERSIONS[6:]}/add/",
    "training/run/",
    "training/dataset/",
    "inference/batchjob/",
    "tenants/apitoken/",
    "tenants/apitoken/add/",
    "tenants/membership/",
    "journal/auditevent/",
    "usage/",
    "settings/",
)


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
    for number, model in ((1, "churn"), (2, "churn"), (1, LONG)):
        metadata = {"metrics": {"accuracy": 0.8 + number / 20}, "tags": {"team": "growth"}}
        tenant.ensure_model(model, "# Who leaves\n\nA *card*.")
        tenant.upload(f"models/{model}/versions", {"model.pkl": artifact(number)}, metadata=metadata)
    for number, model in ((1, "churn"), (2, "churn"), (1, LONG)):
        assert tenant.inspected(model, number)["state"] == "ready"
    tenant.post("models/churn/versions/1/activate")
    return place


def artifact(seed: int = 0) -> bytes:
    """A small classifier as a pickle."""
    rows = np.random.default_rng(seed).normal(size=(80, 3))
    return pickle.dumps(LogisticRegression().fit(rows, np.where(rows[:, 0] > 0, "stays", "leaves")))


def entered(browser: Browser, place: Place, role: str, **look: Any) -> Page:
    """A page of the tenant's admin, with somebody of this role logged in. A script that fails, fails the test."""
    page = new_page(browser, **look)
    page.set_default_timeout(WITHIN_MS)
    page.on("pageerror", lambda error: pytest.fail(f"a script failed: {error}"))
    log_in(page, place.tenant.base_url, place.email(role), place.passwords[role])
    return page


def at(place: Place, path: str) -> str:
    return f"{place.tenant.base_url}/{path}"


def open_version(page: Page, place: Place, number: int, model: str = "churn") -> None:
    page.goto(at(place, f"{VERSIONS}/?q={model}"))
    page.get_by_role("link", name=f"{model} v{number}", exact=True).click()


def submit(page: Page) -> None:
    page.locator("form.tny-ask button[type=submit]").click()


def test_an_admin_uploads_watches_activates_tries_and_rolls_back(browser: Browser, place: Place) -> None:
    page = entered(browser, place, ADMIN)
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


def test_a_token_is_shown_once_works_and_is_revoked(browser: Browser, place: Place) -> None:
    page = entered(browser, place, ADMIN)
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
def test_what_a_role_may_not_do_is_absent_and_refused_when_forced(browser: Browser, place: Place, role: str) -> None:
    page = entered(browser, place, role)
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


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_the_main_pages(browser: Browser, place: Place, theme: Any) -> None:
    page = entered(browser, place, ADMIN, theme=theme)
    addresses = [at(place, f"admin/{path}") for path in PAGES]
    open_version(page, place, 2)
    addresses += [
        page.url,
        *(page.url.replace("change/", f"{path}/") for path in ("activate", "remove", "try", "files")),
    ]
    page.goto(at(place, f"{MODELS}/?q=churn"))
    page.get_by_role("link", name="churn", exact=True).click()
    addresses += [page.url, *(page.url.replace("change/", f"{path}/") for path in ("deployment", "rollback", "edit"))]
    found = {address: faults for address in addresses if (faults := serious(page, address))}
    assert not found, "\n".join(f"{address}: {fault}" for address, faults in found.items() for fault in faults)


def serious(page: Page, address: str) -> list[str]:
    """What axe-core holds against a page that is serious or worse."""
    page.goto(address)
    violations = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes'][:3]]}"
        for one in violations
        if one["impact"] in SERIOUS
    ]


def test_no_page_is_wider_than_a_narrow_screen(browser: Browser, place: Place) -> None:
    page = entered(browser, place, ADMIN, size="narrow")
    addresses = [at(place, f"admin/{path}") for path in PAGES]
    for model in ("churn", LONG):
        page.goto(at(place, f"{VERSIONS}/?q={model}"))
        page.get_by_role("link", name=f"{model} v1", exact=True).click()
        addresses.append(page.url)
    for address in addresses:
        page.goto(address)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, f"{address} is {width} px wide"


def test_the_keyboard_reaches_what_can_be_done_and_shows_where_it_is(browser: Browser, place: Place) -> None:
    page = entered(browser, place, ADMIN)
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


def test_times_are_in_the_readers_zone(browser: Browser, place: Place) -> None:
    page = entered(browser, place, ADMIN)
    moment = page.locator("time[datetime]").first
    hours = page.evaluate(
        "time => new Date(time.dateTime).toLocaleString('sv-SE', {timeZone: 'Europe/Berlin'}).slice(0, 16)",
        moment.element_handle(),
    )
    assert moment.inner_text() == hours
