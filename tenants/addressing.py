"""A tenant's address: `/t/{tenantId}` becomes the script name, so that every URL below it comes out right unchanged."""

import re
from collections.abc import Callable, Iterable
from typing import Any

TENANT_ID = re.compile(r"[a-z][a-z0-9-]{1,38}[a-z0-9]")
RESERVED_IDS = frozenset(
    ["admin", "api", "healthz", "login", "logout", "metrics", "operator", "public", "readyz", "static", "system", "www"]
)
PREFIX = "/t/"
ENVIRON_KEY = "tenantry.tenant_id"

WsgiApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class TenantPaths:
    """WSGI middleware that mounts each tenant's address."""

    def __init__(self, application: WsgiApplication) -> None:
        self.application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        mount(environ)
        return self.application(environ, start_response)


def mount(environ: dict[str, Any]) -> None:
    """Move `/t/{tenantId}` from PATH_INFO to SCRIPT_NAME, and note the tenantId in the environ.

    What stands there is not checked against any tenant yet: `tenants.middleware` does that.
    """
    path = environ.get("PATH_INFO", "")
    if path.startswith(PREFIX):
        tenant_id, slash, rest = path[len(PREFIX) :].partition("/")
        environ[ENVIRON_KEY] = tenant_id
        environ["SCRIPT_NAME"] = f"{environ.get('SCRIPT_NAME', '')}{PREFIX}{tenant_id}"
        environ["PATH_INFO"] = slash + rest
