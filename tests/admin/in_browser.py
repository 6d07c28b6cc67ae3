"""A browser whose requests Django's test client answers: real pages over a test's own rows, without a server."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, Queue
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from django.contrib.staticfiles import finders
from django.http import HttpResponse
from playwright.sync_api import Page, Route, ViewportSize

from clients.screenshots.browser import SIZES, new_page, open_browser
from tests.clients import TenantClient

Found = TypeVar("Found")
WITHIN_S = 60
HOST = "http://localhost"  # which a browser trusts as it does https
WIDE, NARROW = (ViewportSize(width=width, height=height) for width, height in (SIZES["wide"], SIZES["narrow"]))
SERIOUS = ("serious", "critical")
EVERYTHING: dict[str, Any] = {"resultTypes": ["violations"]}
CONTRAST = EVERYTHING | {"runOnly": ["color-contrast"]}  # all that a theme changes
IN_THE_DARK = """() => {
  document.documentElement.classList.add("dark");
  document.getAnimations().forEach((one) => one.finish());
}"""


def listen(page: Page) -> list[str]:
    """What the browser says against the page from now on: refusals of its policy, errors of scripts, missing files."""
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(f"{page.url}: {said.text}") if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: a script failed: {error}"))
    return complaints


def walked(clients: Sequence[TenantClient], walk: Callable[[Page], Found]) -> Found:
    """What a walk finds with a page whose requests these clients answer, each those below its own address.

    The browser's driver has a thread of its own; Django's connection, with the test's transaction, stays in this one.

    Raises:
        NoBrowser: there is none.
    """
    asked: Queue[tuple[str, Future[HttpResponse]]] = Queue()

    def answer(route: Route) -> None:
        path = urlsplit(route.request.url).path
        if path.startswith("/static/"):
            found = finders.find(path.removeprefix("/static/"))
            route.fulfill(path=str(found)) if found else route.fulfill(status=404)
            return
        reply: Future[HttpResponse] = Future()
        asked.put((route.request.url.removeprefix(HOST), reply))
        response = reply.result(WITHIN_S)
        body = b"".join(response) if response.streaming else response.content
        route.fulfill(status=response.status_code, headers=dict(response.items()), body=body)

    def browse() -> Found:
        with open_browser() as browser:
            page = new_page(browser)
            page.route("**/*", answer)
            return walk(page)

    with ThreadPoolExecutor(1) as pool:
        walking = pool.submit(browse)
        while not walking.done():
            with suppress(Empty):
                url, reply = asked.get(timeout=0.05)
                _answer(clients, url, reply)
    return walking.result()


def _answer(clients: Sequence[TenantClient], url: str, reply: "Future[HttpResponse]") -> None:
    client = max((one for one in clients if url.startswith(one.base_path)), key=lambda one: len(one.base_path))
    try:
        reply.set_result(cast(HttpResponse, client.get(url.removeprefix(client.base_path))))
    except Exception as error:  # it fails in the browser's thread, which waits for it
        reply.set_exception(error)


def faults_of(page: Page, path: str) -> list[str]:
    """What is wrong with a page: what axe-core finds serious, in light and dark; what does not fit a narrow screen."""
    page.set_viewport_size(WIDE)
    answer = page.goto(HOST + path)
    if answer is None or answer.status != 200:
        return [f"it is answered with {answer and answer.status}"]
    page.evaluate(Axe().axe_script)
    found = _serious(page, EVERYTHING)
    page.evaluate(IN_THE_DARK)
    found += [f"in the dark, {fault}" for fault in _serious(page, CONTRAST)]
    page.set_viewport_size(NARROW)
    width = page.evaluate("document.documentElement.scrollWidth")
    return found + ([f"it is {width} px wide on a narrow screen"] if width > NARROW["width"] else [])


def _serious(page: Page, options: dict[str, Any]) -> list[str]:
    violations = page.evaluate("(options) => axe.run(options)", options)["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes'][:3]]}"
        for one in violations
        if one["impact"] in SERIOUS
    ]
