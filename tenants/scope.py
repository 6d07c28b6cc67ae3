"""Which tenant the present thread works for. No tenant in scope, no query on a tenant's tables."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from django.db import DEFAULT_DB_ALIAS, connections
from django.db import connection as default_connection
from django.db.backends.base.base import BaseDatabaseWrapper

from common.requests import current_tenant_id
from tenants.models import Tenant

if TYPE_CHECKING:

    class TenantConnection(BaseDatabaseWrapper):
        """What django-tenants' backend adds to a connection."""

        tenant: Any
        schema_name: str
        search_path_set_schemas: list[str] | None

        def set_tenant(self, tenant: Any, include_public: bool = True) -> None: ...
        def set_schema_to_public(self) -> None: ...


connection = cast("TenantConnection", default_connection)


class _Own(threading.local):
    """What `connection` stands for in the calling thread: its detour costs more than most of what is asked of it."""

    def __init__(self) -> None:
        self.connection = cast("TenantConnection", connections[DEFAULT_DB_ALIAS])


own = _Own()


class NoTenantInScope(RuntimeError):
    """Code that needs a tenant ran without one: a bug, never the caller's fault."""


def current_tenant() -> Tenant:
    """The tenant that the present thread works for.

    Raises:
        NoTenantInScope: there is none.
    """
    tenant = own.connection.tenant
    if not isinstance(tenant, Tenant):
        raise NoTenantInScope("this code works for one tenant and was called outside any")
    return tenant


@contextmanager
def tenant_scope(tenant: Tenant) -> Iterator[Tenant]:
    """Work for this tenant inside the block; the tenant before it is back afterwards, whatever happens."""
    of_thread = own.connection
    before = of_thread.tenant
    of_thread.set_tenant(tenant)
    named = current_tenant_id.set(tenant.tenant_id)
    try:
        yield tenant
    finally:
        current_tenant_id.reset(named)
        of_thread.set_tenant(before)


@contextmanager
def shared_scope() -> Iterator[None]:
    """Work for no tenant inside the block: shared tables only."""
    before = connection.tenant
    connection.set_schema_to_public()
    try:
        yield
    finally:
        connection.set_tenant(before)
