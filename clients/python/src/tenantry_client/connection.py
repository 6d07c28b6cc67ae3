"""HTTP to one tenant: its token on every request, and its errors as exceptions."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import requests

TIMEOUT_S = 90.0


class TenantryError(Exception):
    """The platform refused a request. code: stable; fields: what was wrong, by the path of the field."""

    def __init__(self, status: int, code: str, message: str, fields: Mapping[str, str]) -> None:
        told = "".join(f"\n  {path}: {fault}" for path, fault in fields.items())
        super().__init__(f"{message} ({status} {code}){told}")
        self.status, self.code, self.fields = status, code, dict(fields)


class Connection:
    """Requests below a tenant's address."""

    def __init__(self, url: str, token: str) -> None:
        self._base = f"{url.rstrip('/')}/api/v1/"
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **query: Any) -> Any:
        """The JSON behind a path."""
        return self._ask("GET", path, params=query)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer to a JSON body; a repeated request is answered once."""
        return self._ask("POST", path, json=dict(body or {}), headers={"Idempotency-Key": uuid.uuid4().hex})

    def send(self, path: str, fields: Mapping[str, str], files: list[tuple[str, tuple[str, Any]]]) -> Any:
        """The answer to a multipart body."""
        return self._ask("POST", path, data=dict(fields), files=files)

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        answer = self._session.request(method, self._base + path, timeout=TIMEOUT_S, **options)
        if answer.ok:
            return answer.json() if answer.content else None
        try:
            error = answer.json()["error"]
        except (ValueError, KeyError, TypeError):
            error = {"code": "unknown", "message": answer.text[:300] or answer.reason}
        raise TenantryError(answer.status_code, error["code"], error["message"], error.get("fields", {}))
