"""Takes the pictures against a running platform: `TENANTRY_URL=http://… python -m clients.screenshots`."""

import argparse
import io
import os
from itertools import product
from pathlib import Path
from typing import get_args

from PIL import Image
from playwright.sync_api import Browser, Page

from clients.demo.platform import Operator
from clients.screenshots.browser import SIZES, Theme, log_in, new_page, open_browser
from clients.screenshots.scenes import Stage, furnish, scenes

COLOURS = 128
SETTLE_MS = 250  # what slides or fades has come to rest
COUNTED_MS = 4_000  # predictions show within some three seconds


def main() -> None:
    """Take the documents' pictures; and every picture, if a folder is named for them."""
    parser = argparse.ArgumentParser(prog="clients.screenshots")
    parser.add_argument("--kept", type=Path, default=Path("docs/pictures"), help="where the documents' pictures go")
    parser.add_argument("--all", type=Path, help="where every picture goes, of each theme and width")
    said = parser.parse_args()
    url, var = os.environ.get("TENANTRY_URL", "http://127.0.0.1:8000"), Path(os.environ.get("TENANTRY_VAR", "var"))
    operator = Operator(url, var / "operator.json")
    operator.log_in()
    stage = furnish(operator)
    with open_browser() as browser:
        for theme, size in product(get_args(Theme), SIZES):
            take(browser, stage, theme, size, said.kept, said.all)


def take(browser: Browser, stage: Stage, theme: Theme, size: str, kept: Path, every: Path | None) -> None:
    """Take the pictures of one theme and width."""
    page = new_page(browser, size=size, theme=theme)
    log_in(page, stage.tenant.base_url, stage.email, stage.password)
    page.wait_for_timeout(COUNTED_MS)
    base = f"{stage.tenant.base_url}/admin/"
    model = path_of(page, base, "registeredmodel", "churn")
    version = path_of(page, base, "modelversion", "churn v3")
    for scene in scenes(model, version):
        name = "-".join(word for word in (scene.name, size, theme) if word not in ("wide", "light"))
        folders = [every] if every else []
        if f"{size} {theme}" in scene.kept:
            folders.append(kept)
        if not folders:
            continue
        page.goto(f"{base}{scene.path}")
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(SETTLE_MS)
        picture = small(page.screenshot(full_page=True))
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.png").write_bytes(picture)


def path_of(page: Page, base: str, kind: str, name: str) -> str:
    """The path below `base` of something in one of the registry's lists."""
    page.goto(f"{base}models_registry/{kind}/?q=churn")
    page.get_by_role("link", name=name, exact=True).click()
    return page.url.removeprefix(base).partition("/change/")[0]


def small(picture: bytes) -> bytes:
    """The picture in few colours, as pages have."""
    out = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS).save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    main()
