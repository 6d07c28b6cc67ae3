"""What one tenant can take of a web process, and what is left for the others."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tenants import job_api, middleware
from tenants.job_api import await_end
from tenants.models import Job, Tenant
from tests.clients import client_of


def make(tenant: Tenant) -> Job:
    return Job.objects.create(tenant=tenant, kind="tests.nothing", object_id="1")


def waited_s(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def test_a_wait_ends_with_its_job(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    job, looks = make(acme), []

    def sleep(pause_s: float) -> None:
        looks.append(pause_s)
        if len(looks) == 10:
            Job.objects.get(pk=job.pk).cancel()

    monkeypatch.setattr("tenants.job_api.time.sleep", sleep)

    assert await_end(job, 60).has_ended
    assert looks[0] == pytest.approx(0.1)
    assert looks == sorted(looks)
    assert looks[-1] == 1.0


@pytest.mark.parametrize(("threads", "of_one", "in_all"), [(1, 1, 1), (4, 1, 1), (8, 1, 2), (16, 2, 4), (64, 2, 16)])
def test_waits_take_a_quarter_of_the_threads(
    acme: Tenant, globex: Tenant, settings: Any, threads: int, of_one: int, in_all: int
) -> None:
    settings.WEB_THREADS = threads
    taken: list[Any] = []

    def take(whose: str) -> bool:
        """Whether somebody could wait, who then does so for good."""
        return waited_s(lambda: await_end(job if whose == "acme" else other, 0.15)) > 0.1

    job, other = make(acme), make(globex)
    for number in range(of_one):
        assert take("acme")
        taken.append(job_api.WAITS.seat(acme.uuid.hex, most_each=99))
        taken[number].__enter__()
    assert not take("acme")
    assert take("globex") == (in_all > of_one)
    for number in range(in_all - of_one):
        taken.append(job_api.WAITS.seat(f"other {number}", most_each=99))
        taken[-1].__enter__()
    assert not take("globex")
    for seat in taken:
        seat.__exit__(None, None, None)
    assert take("acme")


def test_a_tenants_requests_in_flight_are_bounded_before_the_body_is_read(
    acme: Tenant, globex: Tenant, settings: Any
) -> None:
    settings.TENANT_REQUESTS_IN_FLIGHT = 2
    client = client_of(acme)
    seats = [middleware.IN_FLIGHT.seat(acme.schema_name, most_each=2) for _ in range(2)]
    for seat in seats:
        seat.__enter__()
    try:
        refused = client.get("api/v1/whoami")
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "too_many_requests"
        assert refused["Retry-After"] == "1"
        assert client.get("login").status_code == 200  # pages are not counted
        assert client_of(globex).get("api/v1/whoami").status_code == 200
    finally:
        for seat in seats:
            seat.__exit__(None, None, None)
    assert client.get("api/v1/whoami").status_code == 200


def test_a_place_is_free_again_whatever_became_of_its_request(
    acme: Tenant, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.TENANT_REQUESTS_IN_FLIGHT = 1
    monkeypatch.setattr("tenants.api.WhoAmIView.get", lambda *args: 1 / 0)
    client = client_of(acme)

    assert [client.get("api/v1/whoami").status_code for _ in range(3)] == [500] * 3
    assert [client.get("api/v1/nothing").status_code for _ in range(3)] == [404] * 3


def test_seats_are_counted_right_by_many_threads() -> None:
    from common.seats import Seats

    seats, now, most, lock = Seats(), 0, 0, threading.Lock()

    def sit() -> None:
        nonlocal now, most
        for _ in range(500):
            with seats.seat("a", most_each=3) as is_seated:
                if is_seated:
                    with lock:
                        now += 1
                        most = max(most, now)
                    with lock:
                        now -= 1

    threads = [threading.Thread(target=sit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (now, most <= 3) == (0, True)
    with seats.seat("a", most_each=1) as is_seated:
        assert is_seated
