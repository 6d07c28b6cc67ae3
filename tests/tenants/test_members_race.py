"""Two tenants' admins, or two requests, that add the same person at once."""

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from common.errors import Conflict
from tenants import audit, services
from tenants.models import Tenant, User


@pytest.fixture
def other_tenant(committed_tenant: Tenant) -> Iterator[Tenant]:
    """A second tenant whose rows are committed."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    tenant = services.provision_tenant(
        tenant_id=name, name=name, admin_email=f"admin@{name}.test", actor="tests"
    ).tenant
    yield tenant
    services.delete_tenant(tenant=tenant, confirm=name, actor="tests")


@pytest.fixture
def email(committed_tenant: Tenant) -> Iterator[str]:
    """Of nobody yet; of nobody any more after the test."""
    address = f"{uuid.uuid4().hex[:12]}@people.test"
    yield address
    User.objects.filter(email=address).delete()


@pytest.fixture
def slow_first(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Holds whoever is called `first` just before the end of its transaction: (is there, may go on)."""
    arrived, go_on, record = threading.Event(), threading.Event(), audit.record

    def held_record(**said: Any) -> Any:
        if said["actor"] == "first":
            arrived.set()
            go_on.wait(20)
        return record(**said)

    monkeypatch.setattr(audit, "record", held_record)
    return arrived, go_on


def in_thread(outcomes: dict[str, object], name: str, work: Callable[[], object]) -> threading.Thread:
    def run() -> None:
        try:
            outcomes[name] = work()
        except Conflict as error:
            outcomes[name] = error.code
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("is_known", [True, False])
def test_of_two_tenants_that_add_an_account_at_once_one_sets_its_password(
    committed_tenant: Tenant,
    other_tenant: Tenant,
    email: str,
    slow_first: tuple[threading.Event, threading.Event],
    is_known: bool,
) -> None:
    if is_known:
        left, _ = services.add_member(tenant=other_tenant, email=email, role="viewer", actor="setup")
        services.remove_member(membership=left, actor="setup")
    arrived, go_on = slow_first
    outcomes: dict[str, Any] = {}

    def add(tenant: Tenant, actor: str) -> Callable[[], object]:
        return lambda: services.add_member(tenant=tenant, email=email, role="admin", actor=actor)[1]

    first = in_thread(outcomes, "first", add(committed_tenant, "first"))
    assert arrived.wait(20)
    second = in_thread(outcomes, "second", add(other_tenant, "second"))
    second.join(0.5)  # it waits for the first
    go_on.set()
    first.join(20)
    second.join(20)

    user = User.objects.get(email=email)
    assert outcomes["second"] == ("known_elsewhere" if is_known else "conflict")
    assert user.check_password(outcomes["first"])
    assert [membership.tenant_id for membership in user.memberships.all()] == [committed_tenant.pk]
