"""Requests of several tenants on one connection never meet each other's things."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import transaction
from django.http import HttpRequest, StreamingHttpResponse
from django.test import RequestFactory

from common.errors import Conflict
from tenants import services
from tenants.addressing import ENVIRON_KEY
from tenants.journal.models import AuditEvent
from tenants.middleware import TenantMiddleware
from tenants.models import Membership, Role, Tenant
from tenants.scope import connection, tenant_scope
from tests.clients import TenantClient, client_of


def search_path() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW search_path")
        return str(cursor.fetchone()[0])


def mark(tenant: Tenant) -> None:
    with tenant_scope(tenant):
        AuditEvent.objects.create(actor="mark", action=f"mark.{tenant.tenant_id}")


def marks(client: TenantClient) -> list[str]:
    return [event["action"] for event in client.get("api/v1/audit?actor=mark").json()["results"]]


def test_interleaved_requests_see_their_own_tenant(acme: Tenant, globex: Tenant) -> None:
    mark(acme)
    mark(globex)
    clients = {"mark.acme": client_of(acme), "mark.globex": client_of(globex)}

    for _ in range(5):
        for own, client in clients.items():
            assert marks(client) == [own]


def test_an_error_in_a_view_leaves_no_tenant_on_the_connection(
    acme: Tenant, globex: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark(globex)
    client, others = client_of(acme), client_of(globex)

    def broken(*args: Any) -> None:
        assert search_path().startswith(f"{acme.schema_name},")
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr("tenants.api.AuditView.get_queryset", broken)
        assert client.get("api/v1/audit").status_code == 500

    assert search_path() == "public"
    assert marks(others) == ["mark.globex"]


def test_a_bodys_chunks_and_another_tenants_requests_share_a_connection(acme: Tenant, globex: Tenant) -> None:
    mark(acme)
    mark(globex)
    others = client_of(globex)

    def body() -> Iterator[str]:
        for _ in range(3):
            yield ",".join(AuditEvent.objects.filter(actor="mark").values_list("action", flat=True))

    def view(request: HttpRequest) -> Any:
        return StreamingHttpResponse(body())

    request = RequestFactory().get("/anything")
    request.environ[ENVIRON_KEY] = "acme"

    for chunk in TenantMiddleware(view)(request):
        assert chunk == b"mark.acme"
        assert search_path() == "public"
        assert marks(others) == ["mark.globex"]


def test_a_connection_that_broke_comes_back_to_the_right_tenant(committed_tenant: Tenant) -> None:
    mark(committed_tenant)
    with tenant_scope(committed_tenant):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
        connection.close()
        assert list(AuditEvent.objects.filter(actor="mark").values_list("action", flat=True)) == [
            f"mark.{committed_tenant.tenant_id}"
        ]


def test_a_rolled_back_transaction_does_not_bring_another_search_path_back(acme: Tenant, globex: Tenant) -> None:
    mark(globex)
    with tenant_scope(globex):
        with suppress(ValueError), transaction.atomic(), tenant_scope(acme):
            AuditEvent.objects.exists()
            raise ValueError
        assert AuditEvent.objects.filter(action="mark.globex").exists()


def test_of_two_admins_who_demote_each_other_one_stays(committed_tenant: Tenant) -> None:
    first = Membership.objects.get(tenant=committed_tenant)
    second, _ = services.add_member(
        tenant=committed_tenant, email=f"b@{committed_tenant.tenant_id}.test", role="admin", actor="tests"
    )
    together = threading.Barrier(2)

    def demote(member: Membership) -> None:
        try:
            together.wait()
            with suppress(Conflict):
                services.change_role(membership=member, role=Role.VIEWER, actor="tests")
        finally:
            connection.close()

    threads = [threading.Thread(target=demote, args=(member,)) for member in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Membership.objects.filter(tenant=committed_tenant, role=Role.ADMIN).count() == 1
