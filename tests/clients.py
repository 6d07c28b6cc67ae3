"""HTTP clients that speak to a tenant's address as a user would."""

import json
from typing import Any

from django.test import Client
from django.urls import clear_script_prefix, set_script_prefix

from tenants.addressing import mount
from tenants.models import ApiToken, Tenant


class TenantClient(Client):
    """Django's test client below one base path, with a bearer token; JSON bodies by default."""

    def __init__(self, base_path: str = "", token: str = "", **kwargs: Any) -> None:
        super().__init__(raise_request_exception=False, **kwargs)
        self.base_path = base_path
        self.token = token

    def request(self, **request: Any) -> Any:
        if self.token:
            request.setdefault("HTTP_AUTHORIZATION", f"Bearer {self.token}")
        set_script_prefix(f"{self.base_path}/")  # as the WSGI handler does, which this client goes without
        try:
            return super().request(**request)
        finally:
            clear_script_prefix()

    def _base_environ(self, **request: Any) -> dict[str, Any]:
        environ: dict[str, Any] = super()._base_environ(**request)  # type: ignore[misc]
        mount(environ)
        return environ

    def generic(self, method: str, path: str, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        return super().generic(method, f"{self.base_path}/{path.lstrip('/')}", *args, **kwargs)

    def post_json(self, path: str, body: Any = None, **extra: Any) -> Any:
        """POST a JSON body."""
        return self.post(path, json.dumps(body if body is not None else {}), content_type="application/json", **extra)

    def patch_json(self, path: str, body: Any, **extra: Any) -> Any:
        """PATCH with a JSON body."""
        return self.patch(path, json.dumps(body), content_type="application/json", **extra)


def client_of(tenant: Tenant, *scopes: str) -> TenantClient:
    """A client with a fresh token of this tenant; every scope if none is named."""
    _, secret = ApiToken.mint(name="test", tenant=tenant, scopes=list(scopes or ("admin",)))
    return TenantClient(tenant.base_path, secret)


def operator_client() -> TenantClient:
    """A client of the operator's surface with a token for all tenants."""
    _, secret = ApiToken.mint(name="test-operator", scopes=["admin"], all_tenants=True)
    return TenantClient("", secret)
