"""Takes the pictures against a running platform: `TENANTRY_URL=http://… python -m clients.screenshots`."""

import argparse
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import get_args

from PIL import Image
from playwright.sync_api import Browser, Page

from clients.demo.platform import Operator
from clients.screenshots.browser import SIZES, Theme, log_in, new_page, open_browser
from clients.screenshots.scenes import OPERATORS, Scene, Stage, furnish, scenes

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
            take(browser, stage, operator, Camera(theme, size, said.kept, said.all))


@dataclass(frozen=True)
class Camera:
    """How pages are looked at, and where their pictures go. every: where all of them do, if anywhere."""

    theme: Theme
    size: str
    kept: Path
    every: Path | None

    def shoot(self, page: Page, base: str, scenes: Sequence[Scene]) -> None:
        """Take the pictures that are wanted of these pages below `base`."""
        for scene in scenes:
            folders = [*([self.every] if self.every else []), *([self.kept] if self._keeps(scene) else [])]
            if not folders:
                continue
            page.goto(f"{base}{scene.path}")
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(SETTLE_MS)
            picture = small(page.screenshot(full_page=True))
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{self._name(scene)}.png").write_bytes(picture)

    def _keeps(self, scene: Scene) -> bool:
        return f"{self.size} {self.theme}" in scene.kept

    def _name(self, scene: Scene) -> str:
        return "-".join(word for word in (scene.name, self.size, self.theme) if word not in ("wide", "light"))


def take(browser: Browser, stage: Stage, operator: Operator, camera: Camera) -> None:
    """Take the pictures of one theme and width."""
    page = new_page(browser, size=camera.size, theme=camera.theme)
    log_in(page, stage.tenant.base_url, stage.email, stage.password)
    page.wait_for_timeout(COUNTED_MS)
    base = f"{stage.tenant.base_url}/admin/"
    model = path_of(page, base, "registeredmodel", "churn")
    version = path_of(page, base, "modelversion", "churn v3")
    camera.shoot(page, base, scenes(model, version, stage.runs))
    credentials = json.loads(operator.credentials.read_text())
    page = new_page(browser, size=camera.size, theme=camera.theme)
    log_in(page, operator.url, credentials["email"], credentials["password"])
    camera.shoot(page, f"{operator.url}/admin/", OPERATORS)


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
