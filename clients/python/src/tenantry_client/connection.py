"""HTTP to one tenant: its token on every request, and its errors as exceptions."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

import requests

TIMEOUT_S = 90.0
WAIT_S = 20  # for what a request waits for, before it asks again
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # while the platform is away or says that it is
PASSING = (502, 503, 504)


class TenantryError(Exception):
    """The platform refused a request. code: stable; fields: what was wrong, by the path of the field."""

    def __init__(self, status: int, code: str, message: str, fields: Mapping[str, str]) -> None:
        told = "".join(f"\n  {path}: {fault}" for path, fault in fields.items())
        super().__init__(f"{message} ({status} {code}){told}")
        self.status, self.code, self.fields = status, code, dict(fields)


class RunFailed(Exception):
    """A run, a search or an inspection ended without success; the text says why."""


class Connection:
    """Requests below a tenant's address. One that the platform cannot answer just now is sent again, for a while: it
    reads, or it brings a key by which the platform knows it again."""

    def __init__(self, url: str, token: str) -> None:
        self._base = f"{url.rstrip('/')}/api/v1/"
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **query: Any) -> Any:
        """The JSON behind a path."""
        return self._patiently("GET", path, params=query)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer to a JSON body; a repeated request is answered once."""
        return self._patiently("POST", path, json=dict(body or {}), headers={"Idempotency-Key": uuid.uuid4().hex})

    def send(self, path: str, fields: Mapping[str, str], files: list[tuple[str, tuple[str, Any]]]) -> Any:
        """The answer to a multipart body, whose files are read once."""
        return _content(self._once("POST", path, data=dict(fields), files=files))

    def _patiently(self, method: str, path: str, **options: Any) -> Any:
        for pause_s in PAUSES_S:
            try:
                answer = self._once(method, path, **options)
            except requests.ConnectionError:
                time.sleep(pause_s)
                continue
            if answer.status_code not in PASSING:
                return _content(answer)
            time.sleep(pause_s)
        return _content(self._once(method, path, **options))

    def _once(self, method: str, path: str, **options: Any) -> requests.Response:
        return self._session.request(method, self._base + path, timeout=TIMEOUT_S, **options)


def _content(answer: requests.Response) -> Any:
    if answer.ok:
        return answer.json() if answer.content else None
    try:
        error = answer.json()["error"]
        code, message = error["code"], error["message"]
    except (ValueError, KeyError, TypeError):
        error, code, message = {}, "unknown", answer.text[:300] or answer.reason
    raise TenantryError(answer.status_code, code, message, error.get("fields", {}))
