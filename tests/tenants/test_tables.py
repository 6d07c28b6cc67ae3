"""What a process remembers of PostgreSQL is right, bounded, and believed only as long as it is known to be right."""

import os
import re
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from common.errors import Unauthenticated
from tenants import authentication, middleware, services
from tenants.addressing import ENVIRON_KEY
from tenants.authentication import authenticate
from tenants.middleware import tenant_of
from tenants.models import ApiToken, Domain, Tenant
from tenants.scope import tenant_scope
from tenants.tables import LEASE_S, Listener, Table
from tenants.tables import listener as the_processes
from tenants.tables.listener import APPLICATION

SHOWS_WITHIN_S = 1.0


class AlwaysBelievable(Listener):
    """For what a table does by itself."""

    def is_believable(self) -> bool:
        return True


class Heard:
    """A subscriber that keeps what it was told."""

    def __init__(self) -> None:
        self.tags: list[str] = []

    def forget(self, tag: str) -> None:
        self.tags.append(tag)

    def forget_all(self) -> None:
        self.tags.clear()

    def begin_in_fork(self) -> None:
        self.tags.clear()


def within(seconds: float, holds: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


@contextmanager
def hearing(*kinds: str, source: Listener | None = None) -> Iterator[Heard]:
    """What is heard of these kinds during the block, by a listener that hears."""
    own, heard = source or Listener(), Heard()
    for kind in kinds:
        own.subscribe(kind, heard)
    within(10, own.is_believable, "it hears")
    yield heard
    if source is None:
        own.stop()


def numbers(**options: Any) -> Table[int, str]:
    return Table("test", tag_of=lambda key, value: value[:1], source=AlwaysBelievable(), **options)


# --- a table by itself -----------------------------------------------------------------------------------------------


def test_a_value_is_loaded_once_until_its_tag_is_forgotten() -> None:
    table, loads = numbers(most=10), iter(["a1", "b1", "a2"])
    assert [table.get(1, lambda: next(loads)) for _ in range(3)] == ["a1"] * 3
    assert table.get(2, lambda: next(loads)) == "b1"
    table.forget("a")
    assert table.get(1, lambda: next(loads)) == "a2"
    assert table.get(2, lambda: next(loads)) == "b1"


def test_what_changed_while_it_was_loaded_is_not_kept() -> None:
    table = numbers(most=10, most_absent=10)

    def load() -> str:
        table.forget("something else")
        return "a1"

    assert table.get(1, load) == "a1"
    assert table.get(1, lambda: "a2") == "a2"


def test_an_absence_is_kept_until_anything_of_the_kind_changes() -> None:
    table = numbers(most=10, most_absent=10)
    assert table.get(1, lambda: None) is None
    assert table.get(1, lambda: "a1") is None
    table.forget("whatever")
    assert table.get(1, lambda: "a1") == "a1"


def test_values_and_absences_are_bounded() -> None:
    table = numbers(most=100, most_absent=10, weigh=len)
    for key in range(1000):
        table.get(key, lambda: "abcde")
        table.get(-1 - key, lambda: None)
    assert len(table) == 100 // 5 + 10
    assert table.get(5000, lambda: "x" * 101) == "x" * 101
    assert table.get(999, lambda: "gone") == "gone"
    table.forget("a")
    table.forget("g")
    assert len(table) == 0


def test_threads_that_load_and_forget_at_once_leave_nothing_behind() -> None:
    table = numbers(most=50, most_absent=5)
    version = [0]
    done = threading.Event()

    def load(key: int) -> str | None:
        return f"a{version[0]}" if key % 7 else None

    def read() -> None:
        while not done.is_set():
            for key in range(60):
                table.get(key, partial(load, key))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(300):
        version[0] = number
        table.forget("a")
    done.set()
    for thread in threads:
        thread.join()
    assert len(table) <= 55
    assert {table.get(key, lambda: "a299") for key in range(60) if key % 7} == {"a299"}


# --- what it is made from --------------------------------------------------------------------------------------------


def request_at(tenant: Tenant, secret: str = "") -> Any:
    request = RequestFactory().get("/api/v1/whoami", HTTP_HOST="testserver", HTTP_AUTHORIZATION=f"Bearer {secret}")
    request.environ[ENVIRON_KEY] = tenant.tenant_id
    request.tenant = tenant  # type: ignore[attr-defined]
    return request


def triggers(schema_name: str) -> set[str]:
    """The tables of a schema whose every change is notified."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, bit_or(tgtype) FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid "
            "JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE nspname = %s AND tgfoid = 'public.tenantry_changed'::regproc AND tgenabled = 'O' GROUP BY relname",
            [schema_name],
        )
        insert, delete, update = 4, 8, 16
        return {name for name, events in cursor.fetchall() if events & 28 == insert | delete | update}


def tables_read(work: Callable[[], object]) -> set[str]:
    """The database's tables that `work` reads."""
    with CaptureQueriesContext(connection) as captured:
        work()
    return {name for query in captured for name in re.findall(r'(?:FROM|JOIN) "(\w+)"', query["sql"])}


def test_whatever_tenants_and_tokens_are_read_from_notifies_its_changes(acme: Tenant, globex: Tenant) -> None:
    _, own = services.issue_token(tenant=acme, name="a", scopes=["read"], expires_in=None, actor="tests")
    _, operators = ApiToken.mint(name="o", scopes=["read"])
    operators_token = ApiToken.objects.by_secret(operators).get()
    operators_token.tenants.set([acme, globex])

    read = tables_read(lambda: tenant_of(request_at(acme)))
    read |= tables_read(lambda: authenticate(request_at(acme, own)))
    assert read == {"tenants_tenant", "tenants_domain", "tenants_apitoken"}
    with CaptureQueriesContext(connection) as captured, tenant_scope(acme):
        authenticate(request_at(acme, operators))
    assert any("tenants_apitoken_tenants" in query["sql"] for query in captured)
    assert read | {"tenants_apitoken_tenants"} <= triggers("public")


def test_every_way_to_change_a_tenant_is_heard(committed_tenant: Tenant) -> None:
    tenant, key = committed_tenant, str(committed_tenant.pk)
    of_tenant: dict[str, Callable[[], object]] = {
        "service": lambda: services.set_suspended(tenant=tenant, suspended=True, actor="tests"),
        "query set": lambda: Tenant.objects.filter(pk=tenant.pk).update(lane="queue"),
        "save": lambda: tenant.save(),
        "new host": lambda: services.add_domain(tenant=tenant, domain=f"{tenant.tenant_id}.test", actor="tests"),
        "other host": lambda: Domain.objects.filter(tenant=tenant).update(domain=f"b-{tenant.tenant_id}.test"),
        "host gone": lambda: Domain.objects.filter(tenant=tenant).delete(),
    }
    with hearing("tenant") as heard:
        for name, change in of_tenant.items():
            heard.tags.clear()
            change()
            within(SHOWS_WITHIN_S, lambda: key in heard.tags, name)


def test_every_way_to_change_a_token_is_heard_and_its_use_is_not(committed_tenant: Tenant) -> None:
    with hearing("token") as heard:
        token, _ = services.issue_token(
            tenant=committed_tenant, name="a", scopes=["read"], expires_in=None, actor="tests"
        )
        within(SHOWS_WITHIN_S, lambda: str(token.pk) in heard.tags, "issued")
        heard.tags.clear()
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=timezone.now())
        operators, _ = ApiToken.mint(name="o", scopes=["read"])
        operators.tenants.add(committed_tenant)
        changes: dict[str, Callable[[], object]] = {
            "narrowed": lambda: ApiToken.objects.filter(pk=token.pk).update(scopes=[]),
            "expires": lambda: ApiToken.objects.filter(pk=token.pk).update(expires_at=timezone.now()),
            "revoked": lambda: services.revoke_token(token=token, actor="tests"),
        }
        within(SHOWS_WITHIN_S, lambda: str(operators.pk) in heard.tags, "listed")
        assert str(token.pk) not in heard.tags
        for name, change in changes.items():
            heard.tags.clear()
            change()
            within(SHOWS_WITHIN_S, lambda: str(token.pk) in heard.tags, name)
        heard.tags.clear()
        operators.tenants.clear()
        within(SHOWS_WITHIN_S, lambda: str(operators.pk) in heard.tags, "listed no more")
        operators.delete()


def test_a_change_that_is_rolled_back_is_not_heard(committed_tenant: Tenant) -> None:
    with hearing("tenant") as heard:
        with suppress(ValueError), transaction.atomic():
            Tenant.objects.filter(pk=committed_tenant.pk).update(lane="queue")
            raise ValueError
        Tenant.objects.filter(pk=committed_tenant.pk).update(lane="direct")
        within(SHOWS_WITHIN_S, lambda: heard.tags, "the other change")
        assert heard.tags == [str(committed_tenant.pk)]


# --- until when it is believed ---------------------------------------------------------------------------------------


def test_a_warm_tenant_and_token_cost_no_query_and_a_change_shows_at_once(
    committed_tenant: Tenant, django_assert_num_queries: Any
) -> None:
    tenant = committed_tenant
    token, secret = services.issue_token(tenant=tenant, name="a", scopes=["read"], expires_in=None, actor="tests")
    within(10, the_processes.is_believable, "it hears")

    def ask() -> Any:
        return authenticate(request_at(tenant_of(request_at(tenant)), secret))  # type: ignore[arg-type]

    ask()
    with django_assert_num_queries(0):
        assert ask().may("read")
    services.set_suspended(tenant=tenant, suspended=True, actor="tests")
    within(SHOWS_WITHIN_S, lambda: not tenant_of(request_at(tenant)).is_active, "suspended")  # type: ignore[union-attr]
    services.set_suspended(tenant=tenant, suspended=False, actor="tests")
    within(SHOWS_WITHIN_S, lambda: refuses(ask) is None, "resumed")
    services.revoke_token(token=token, actor="tests")
    within(SHOWS_WITHIN_S, lambda: refuses(ask) == "unauthenticated", "revoked")


def refuses(ask: Callable[[], object]) -> str | None:
    try:
        ask()
    except Exception as error:
        return str(getattr(error, "code", error))
    return None


def test_a_token_that_is_remembered_still_ends_when_it_expires(committed_tenant: Tenant) -> None:
    lives = timedelta(seconds=0.5)
    _, secret = services.issue_token(tenant=committed_tenant, name="a", scopes=["read"], expires_in=lives, actor="t")
    within(10, the_processes.is_believable, "it hears")
    assert refuses(lambda: authenticate(request_at(committed_tenant, secret))) is None
    within(2, lambda: refuses(lambda: authenticate(request_at(committed_tenant, secret))), "expired")


def test_a_transaction_sees_its_own_changes(committed_tenant: Tenant) -> None:
    within(10, the_processes.is_believable, "it hears")
    tenant_of(request_at(committed_tenant))
    with transaction.atomic():
        Tenant.objects.filter(pk=committed_tenant.pk).update(lane="queue")
        assert tenant_of(request_at(committed_tenant)).lane == "queue"  # type: ignore[union-attr]


def test_what_a_view_changes_of_its_tenant_stays_with_its_request(committed_tenant: Tenant) -> None:
    within(10, the_processes.is_believable, "it hears")
    mine = tenant_of(request_at(committed_tenant))
    assert mine is not None
    mine.name = "changed"
    assert tenant_of(request_at(committed_tenant)).name != "changed"  # type: ignore[union-attr]


def test_strangers_with_invented_tokens_take_bounded_memory(
    committed_tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication.TOKENS, "_most_absent", 5)
    authentication.TOKENS.forget_all()
    within(10, the_processes.is_believable, "it hears")
    for request in [request_at(committed_tenant, uuid.uuid4().hex) for _ in range(30)]:
        with pytest.raises(Unauthenticated):
            authenticate(request)
    assert len(authentication.TOKENS) <= 5


@pytest.mark.parametrize("host", ["{}.test", "testserver:{}"])
def test_strangers_with_invented_hosts_take_bounded_memory(
    committed_tenant: Tenant, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(middleware.TENANTS, "_most_absent", 5)
    monkeypatch.setattr(middleware, "MOST_HOSTS", 5)
    middleware.TENANTS.forget_all()
    middleware._hosts.clear()
    within(10, the_processes.is_believable, "it hears")
    for number in range(30):
        request = request_at(committed_tenant)
        request.META["HTTP_HOST"] = host.format(str(number + 1) * 150)  # from 10 on longer than any host
        tenant_of(request)
    remembered = [*middleware._hosts, *(key for _, key in middleware.TENANTS._absent)]
    assert len(remembered) <= 10
    assert all(len(one) <= 253 for one in remembered)


class Proxy:
    """PostgreSQL at another address, from which nothing comes once it is frozen: a half-open connection."""

    def __init__(self, folder: Path, to: str) -> None:
        self.host = str(folder)
        self._to = to
        self._gate = threading.Lock()
        self._ends: list[socket.socket] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(f"{folder}/.s.PGSQL.5432")
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        self._gate.acquire()

    def thaw(self) -> None:
        self._gate.release()

    def close(self) -> None:
        for end in (self._listening, *self._ends):
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._to)
                self._ends += [ours, server]
                threading.Thread(target=self._carry, args=(ours, server), daemon=True).start()

    def _carry(self, ours: socket.socket, server: socket.socket) -> None:
        with suppress(OSError, ValueError):
            while True:
                ready = select.select([ours, server], [], [])[0]
                with self._gate:
                    for end in ready:
                        content = end.recv(65536)
                        if not content:
                            return
                        (server if end is ours else ours).sendall(content)


@pytest.fixture
def proxy(tmp_path: Path, django_db_setup: None) -> Iterator[Proxy]:
    settings = connection.settings_dict
    proxy = Proxy(tmp_path, f"{settings['HOST']}/.s.PGSQL.{settings['PORT'] or 5432}")
    yield proxy
    proxy.close()


def test_a_half_open_connection_does_not_outlive_the_lease(committed_tenant: Tenant, proxy: Proxy) -> None:
    parameters = connection.get_connection_params()
    source = Listener(lambda: parameters | {"host": proxy.host, "port": 5432})
    table: Table[str, str] = Table("tenant", tag_of=lambda key, lane: str(committed_tenant.pk), most=10, source=source)

    def lane() -> str | None:
        return table.get("lane", lambda: Tenant.objects.get(pk=committed_tenant.pk).lane or "none")

    within(10, source.is_believable, "it hears")
    assert lane() == "none"

    proxy.freeze()
    Tenant.objects.filter(pk=committed_tenant.pk).update(lane="queue")
    changed_at = time.monotonic()
    within(SHOWS_WITHIN_S, lambda: lane() == "queue", "PostgreSQL is asked")
    assert time.monotonic() - changed_at <= LEASE_S + 0.2
    assert not source.is_believable()

    proxy.thaw()
    within(10, source.is_believable, "it hears again")
    assert lane() == "queue"
    source.stop()


def test_a_listener_whose_connection_was_ended_forgets_what_it_missed(committed_tenant: Tenant) -> None:
    with hearing("tenant", source=the_processes):
        assert tenant_of(request_at(committed_tenant)).lane == ""  # type: ignore[union-attr]
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", [APPLICATION]
            )
        Tenant.objects.filter(pk=committed_tenant.pk).update(lane="queue")
        within(SHOWS_WITHIN_S, lambda: tenant_of(request_at(committed_tenant)).lane == "queue", "asked")  # type: ignore[union-attr]
        within(10, the_processes.is_believable, "it hears again")
        assert tenant_of(request_at(committed_tenant)).lane == "queue"  # type: ignore[union-attr]


def test_a_forked_child_begins_anew_and_leaves_its_parents_connection_alone(committed_tenant: Tenant) -> None:
    within(10, the_processes.is_believable, "it hears")
    tenant_of(request_at(committed_tenant))
    ours = the_processes._connection
    if (child := os.fork()) == 0:
        is_anew = time.monotonic() >= the_processes._believable_until and the_processes._thread is None
        os._exit(0 if is_anew else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with hearing("tenant", source=the_processes) as heard:
        Tenant.objects.filter(pk=committed_tenant.pk).update(lane="queue")
        within(SHOWS_WITHIN_S, lambda: str(committed_tenant.pk) in heard.tags, "heard")
    assert the_processes._connection is ours
