"""A browser to look at the platform's pages with: Debian's Chromium, driven by Playwright."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL_S = 300
# Without these, it asks elsewhere for updates; a container has no user namespace for its sandbox.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZES = {"wide": (1280, 800), "narrow": (390, 844)}
Theme = Literal["light", "dark"]


class NoBrowser(Exception):
    """There is no Chromium, for the reason that it says."""


def chromium() -> str:
    """The path of Chromium, which is installed by apt first where it is missing and can be.

    Raises:
        NoBrowser: it is not there.
    """
    if found := _found():
        return found
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise NoBrowser("Chromium is not installed, and only root can install it: apt-get install chromium")
    for command in (("update",), ("install", "--yes", "--no-install-recommends", "chromium")):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        try:
            done = subprocess.run(
                ["apt-get", "-qq", *command], env=environment, capture_output=True, timeout=INSTALL_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise NoBrowser("Chromium is not installed, and apt-get took too long to install it.") from error
    if found := _found():
        return found
    raise NoBrowser(f"Chromium is not installed: apt-get said {done.stderr.decode(errors='replace')[-200:].strip()!r}")


def _found() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A running browser without a window.

    Raises:
        NoBrowser: there is none.
    """
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def new_page(browser: Browser, *, size: str = "wide", theme: Theme = "light") -> Page:
    """A page in a fresh session, as somebody without cookies has it."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, timezone_id="Europe/Berlin", locale="en-GB"
    )
    return context.new_page()


def log_in(page: Page, base_url: str, email: str, password: str) -> None:
    """Log in at an address, whose admin is then shown."""
    page.goto(f"{base_url}/login")
    page.fill("[name=username]", email)
    page.fill("[name=password]", password)
    page.click("button[type=submit]")
    page.goto(f"{base_url}/admin/")
