"""The platform as its clients see it: an operator's session, and tenants by token."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

TIMEOUT_S = 90
RETRY_PAUSES_S = (1, 3, 0)
HOLDS_WITHIN_S = 1.0  # what a change of what serves takes to be known to every process, of each machine
ENDED = ("succeeded", "failed", "cancelled")


class Refused(Exception):
    """The platform answered with an error."""

    def __init__(self, response: requests.Response) -> None:
        try:
            error = response.json()["error"]
        except (ValueError, KeyError, TypeError):
            error = {"code": "?", "message": response.text[:200]}
        fields = "".join(f" {name}: {fault}" for name, fault in error.get("fields", {}).items())
        super().__init__(f"{response.status_code} {error['code']}: {error['message']}{fields}")
        self.status = response.status_code
        self.code = str(error["code"])


class Operator:
    """The operator of the platform, logged in as in a browser."""

    def __init__(self, url: str, credentials: Path) -> None:
        self.url = url.rstrip("/")
        self.credentials = credentials
        self.session = requests.Session()

    def log_in(self) -> str:
        """Open a session with the credentials that the first start made; the operator's email address."""
        kept = json.loads(self.credentials.read_text())
        self.session.get(f"{self.url}/login", timeout=TIMEOUT_S).raise_for_status()
        form = {"username": kept["email"], "password": kept["password"], "csrfmiddlewaretoken": self._csrf()}
        answer = self.session.post(
            f"{self.url}/login", data=form, headers={"Referer": self.url}, timeout=TIMEOUT_S, allow_redirects=False
        )
        if answer.status_code != 302:
            raise Refused(answer)
        return str(kept["email"])

    def tenant(self, tenant_id: str, name: str) -> tuple["Tenant", dict[str, Any] | None]:
        """The tenant by a fresh token; and, if it was made just now, its first admin."""
        try:
            made = self._call(
                "POST", "/api/v1/tenants", {"tenantId": tenant_id, "name": name, "admin": f"admin@{tenant_id}.example"}
            )
            return Tenant(self.url, tenant_id, made["token"]), made["admin"]
        except Refused as refused:
            if refused.code != "already_exists":
                raise
        token = self._call(
            "POST", f"/t/{tenant_id}/api/v1/tokens", {"name": "demo", "scopes": ["admin"], "expires_in": "1d"}
        )
        return Tenant(self.url, tenant_id, token["token"]), None

    def _call(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"X-CSRFToken": self._csrf(), "Referer": self.url}
        answer = self.session.request(method, self.url + path, json=body, headers=headers, timeout=TIMEOUT_S)
        return _content(answer)

    def _csrf(self) -> str:
        return self.session.cookies.get("csrftoken") or ""


class Tenant:
    """One tenant's API, by token."""

    def __init__(self, url: str, tenant_id: str, token: str) -> None:
        self.tenant_id = tenant_id
        self.base_url = f"{url}/t/{tenant_id}"
        self.token = token
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        """The JSON at a path below `api/v1/`."""
        return _content(self.session.get(self._url(path), params=parameters, timeout=TIMEOUT_S))

    def download(self, path: str) -> bytes:
        """The file at a path below `api/v1/`."""
        answer = self.session.get(self._url(path), timeout=TIMEOUT_S)
        if not answer.ok:
            raise Refused(answer)
        return answer.content

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a POST of JSON answers."""
        for pause_s in RETRY_PAUSES_S:
            answer = self.session.post(self._url(path), json=body or {}, timeout=TIMEOUT_S)
            if answer.status_code not in (503, 504):
                break
            time.sleep(pause_s)  # a machine that is busy starting answers so, and means it
        return _content(answer)

    def upload(self, path: str, files: Mapping[str, bytes], **fields: Any) -> dict[str, Any]:
        """What a multipart POST answers; fields that are no strings go as JSON."""
        parts = [("file", (name, content)) for name, content in files.items()]
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()}
        return _content(self.session.post(self._url(path), files=parts, data=texts, timeout=TIMEOUT_S))

    def ensure_model(self, name: str, description: str) -> None:
        """Have a registered model of this name."""
        try:
            self.post("models", {"name": name, "description": description})
        except Refused as refused:
            if refused.code != "already_exists":
                raise

    def versions(self, model: str) -> list[dict[str, Any]]:
        """The model's ready versions, the first uploaded first."""
        listed = self.get(f"models/{model}/versions", state="ready")["results"]
        return sorted(listed, key=lambda version: int(version["number"]))

    def inspected(self, model: str, number: int) -> dict[str, Any]:
        """The version once inspection has ended."""
        while True:
            version = self.get(f"models/{model}/versions/{number}", wait=30)
            if version["state"] in ("ready", "rejected"):
                return version
            time.sleep(0.2)  # a platform with many waiting answers at once

    def activate(self, model: str, number: int, reason: str) -> None:
        """Have the version serve from now on; `answer_of` hears it first."""
        self.post(f"models/{model}/versions/{number}/activate", {"reason": reason})

    def watch(self, path: str, show: Callable[[float, str], None]) -> dict[str, Any]:
        """The job at a path once it has ended, its progress shown as it changes."""
        for job in self._polled(path):
            show(job["progress"]["percent"], job["progress"]["stage"] or job["state"])
            if job["state"] in ENDED:
                return job
        raise AssertionError("polling ends with the job")

    def _polled(self, path: str) -> Iterator[dict[str, Any]]:
        last: object = None
        while True:
            job = self.get(path)
            if (job["progress"], job["state"]) != last:
                last = (job["progress"], job["state"])
                yield job
            time.sleep(0.2)

    def _url(self, path: str) -> str:
        return f"{self.base_url}/api/v1/{path}"


def answer_of(number: int, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the version answers that was just activated; what another one still answers when it no longer may."""
    until = time.monotonic() + HOLDS_WITHIN_S
    while (answer := ask())["version"] != number and time.monotonic() < until:
        time.sleep(0.05)
    return answer


def _content(answer: requests.Response) -> dict[str, Any]:
    if not answer.ok:
        raise Refused(answer)
    content: dict[str, Any] = answer.json()
    return content
