"""Changes under load: no request is lost, and a change holds within a second, whatever becomes of PostgreSQL."""

import http.client
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import psycopg2
import pytest
import requests
from sklearn.linear_model import LogisticRegression

from clients.demo.platform import Tenant
from tests.acceptance.stack import Stack, eventually

THREADS = 6
SHOWS_WITHIN_S = 1.0
ROWS = orjson.dumps({"instances": [[2.0, 0, 0, 0], [-2.0, 0, 0, 0]]})


@dataclass(frozen=True)
class Answered:
    """One request of one connection. version: None where there was no prediction."""

    connection: int
    sent_at: float
    answered_at: float
    status: int
    version: int | None
    retry_after: str | None


class Load:
    """Clients that ask for predictions one after another, each over its own kept connection."""

    def __init__(self, tenant: Tenant, token: str) -> None:
        self._address = tenant.base_url.removeprefix("http://").partition("/")[0]
        self._path = f"/t/{tenant.tenant_id}/api/v1/models/churn/predict"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(THREADS)]
        self.answers: list[Answered] = []
        self.broken: list[BaseException] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def since(self, moment: float) -> list[Answered]:
        """The answers to what was sent after this moment."""
        return [answer for answer in self.answers if answer.sent_at > moment]

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=30)
        try:
            while not self._is_over.is_set():
                sent_at = time.monotonic()
                connection.request("POST", self._path, ROWS, self._headers)
                response = connection.getresponse()
                version = orjson.loads(response.read()).get("version")
                after = response.headers.get("Retry-After")
                self.answers.append(Answered(number, sent_at, time.monotonic(), response.status, version, after))
                if response.status in (401, 403):
                    connection.close()  # who is refused has a body unread; the next request opens it anew
        except (OSError, http.client.HTTPException, orjson.JSONDecodeError) as error:
            self.broken.append(error)
        finally:
            connection.close()


@contextmanager
def load_on(tenant: Tenant, token: str | None = None) -> Iterator[Load]:
    """Load that has begun, by every connection, and is over after the block."""
    load = Load(tenant, token or tenant.token)
    load.start()
    try:
        eventually(lambda: len({answer.connection for answer in load.answers}) == THREADS, 30, "everybody is answered")
        yield load
    finally:
        load.stop()


def model(sign: int) -> bytes:
    rows = np.random.default_rng(7).normal(size=(100, 4))
    return pickle.dumps(LogisticRegression().fit(rows, np.where(sign * rows[:, 0] > 0, "yes", "no")))


@pytest.fixture(scope="module")
def tenant(stack: Stack) -> Tenant:
    """A tenant whose model has two ready versions, the first of which serves."""
    made = stack.tenant()
    made.ensure_model("churn", "")
    for sign in (1, -1):
        number = made.upload("models/churn/versions", {"model.pkl": model(sign)})["number"]
        assert made.inspected("churn", number)["state"] == "ready"
    activate(made, 1)
    return made


def activate(tenant: Tenant, number: int) -> None:
    tenant.post(f"models/churn/versions/{number}/activate")


@contextmanager
def database(stack: Stack) -> Iterator[Any]:
    """A cursor of the stack's own PostgreSQL."""
    settings = dict(line.split("=", 1) for line in (stack.var / "stack.env").read_text().splitlines() if "=" in line)
    connection = psycopg2.connect(settings["DATABASE_URL"].strip("'\""))
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def test_a_switch_under_load_loses_no_request_and_is_done_within_a_second(tenant: Tenant) -> None:
    switches: list[tuple[float, float, int]] = []
    with load_on(tenant) as load:
        for number in (2, 1, 2, 1):
            began_at = time.monotonic()
            activate(tenant, number)
            switches.append((began_at, time.monotonic(), number))
            eventually(lambda: load.since(switches[-1][1] + SHOWS_WITHIN_S + 0.3), 10, "answers from after the switch")

    assert not load.broken
    assert {answer.status for answer in load.answers} == {200}
    ends = [began_at for began_at, _, _ in switches[1:]] + [time.monotonic()]
    for (began_at, done_at, number), end in zip(switches, ends, strict=True):
        phase = [answer for answer in load.answers if began_at < answer.sent_at and answer.answered_at < end]
        late = [answer for answer in phase if answer.sent_at > done_at + SHOWS_WITHIN_S]
        assert late
        assert {answer.version for answer in late} == {number}
        for connection in range(THREADS):
            seen = [answer.version == number for answer in phase if answer.connection == connection]
            assert seen == sorted(seen), "an older version came back"


def test_a_revoked_token_is_refused_within_a_second_under_load(tenant: Tenant) -> None:
    issued = tenant.post("tokens", {"name": "load", "scopes": ["predict"], "expires_in": "1d"})
    with load_on(tenant, issued["token"]) as load:
        assert requests.delete(
            f"{tenant.base_url}/api/v1/tokens/{issued['id']}",
            headers={"Authorization": f"Bearer {tenant.token}"},
            timeout=30,
        ).ok
        revoked_at = time.monotonic()
        eventually(lambda: load.since(revoked_at + SHOWS_WITHIN_S), 60, "answers from after it")

    assert not load.broken
    assert {answer.status for answer in load.answers} == {200, 401}
    assert {answer.status for answer in load.since(revoked_at + SHOWS_WITHIN_S)} == {401}


def test_a_suspension_holds_within_a_second_though_nobody_hears_of_it(stack: Stack, tenant: Tenant) -> None:
    with database(stack) as cursor, load_on(tenant) as load:
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'tenantry tables'")
        ears = [
            process for (pid,) in cursor.fetchall() for process in stack.processes("postgres") if process.pid == pid
        ]
        assert len(ears) >= 2  # of each web process one
        try:
            for ear in ears:
                ear.send_signal(signal.SIGSTOP)  # the connections stay open, and nothing comes over them
            cursor.execute("UPDATE tenants_tenant SET state = 'suspended' WHERE tenant_id = %s", [tenant.tenant_id])
            suspended_at = time.monotonic()
            eventually(lambda: load.since(suspended_at + SHOWS_WITHIN_S), 60, "answers from after it")
        finally:
            for ear in ears:
                ear.send_signal(signal.SIGCONT)
            cursor.execute("UPDATE tenants_tenant SET state = 'active' WHERE tenant_id = %s", [tenant.tenant_id])
        active_at = time.monotonic()
        eventually(lambda: load.since(active_at + SHOWS_WITHIN_S), 10, "answers from after its return")

    assert not load.broken
    between = [one for one in load.since(suspended_at + SHOWS_WITHIN_S) if one.answered_at < active_at]
    assert {answer.status for answer in between} == {403}
    assert {answer.status for answer in load.since(active_at + SHOWS_WITHIN_S)} == {200}


def test_while_postgresql_restarts_answers_are_right_or_say_when_to_try_again(stack: Stack, tenant: Tenant) -> None:
    def is_up() -> bool:
        try:
            with database(stack) as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error:
            return False
        return True

    with load_on(tenant) as load:
        (server,) = [process for process in stack.processes("postgres", "-D") if "-D" in process.cmdline()]
        server.send_signal(signal.SIGINT)  # a fast shutdown; the supervisor starts it again
        server.wait(30)
        eventually(is_up, 30, "PostgreSQL is back")
        back_at = time.monotonic()
        eventually(lambda: _all_answered_rightly_since(load, back_at), 30, "everybody is answered again")
        activate(tenant, 2)
        activated_at = time.monotonic()
        eventually(lambda: load.since(activated_at + SHOWS_WITHIN_S), 10, "answers from after the switch")

    assert not load.broken
    assert {answer.status for answer in load.answers} <= {200, 503}
    assert all(answer.retry_after for answer in load.answers if answer.status == 503)
    assert {answer.version for answer in load.since(activated_at + SHOWS_WITHIN_S)} == {2}


def _all_answered_rightly_since(load: Load, moment: float) -> bool:
    rightly = {answer.connection for answer in load.since(moment) if answer.status == 200}
    return len(rightly) == THREADS
