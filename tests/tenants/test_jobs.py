"""A job's life under races: who may take it, hold it, write for it and end it."""

import itertools
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from celery import shared_task
from django.db import DatabaseError, transaction
from django.utils import timezone

from common.errors import Conflict, Invalid, Unavailable
from tenants import jobs
from tenants.jobs import TenantTask, work_on
from tenants.journal.models import AuditEvent
from tenants.models import Job, JobLost, JobState, Tenant
from tenants.scope import connection, current_tenant, tenant_scope

KIND = "tests.nothing"  # no worker takes it


@shared_task(name="tests.whose", base=TenantTask)
def whose(*, word: str) -> str:
    return f"{current_tenant().tenant_id} {word}"


def make(tenant: Tenant, **fields: Any) -> Job:
    return Job.objects.create(tenant=tenant, kind=KIND, object_id="1", **fields)


def expire(job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def fresh(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


def at_once(count: int, work: Callable[[], object]) -> list[object]:
    """What each of `count` threads got from the same work, begun together; JobLost and Conflict as their types."""
    outcomes: list[object] = []
    together = threading.Barrier(count)

    def run() -> None:
        try:
            together.wait()
            outcomes.append(work())
        except (JobLost, Conflict) as error:
            outcomes.append(type(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_a_task_without_its_tenant_refuses_to_run(acme: Tenant) -> None:
    with pytest.raises(TypeError, match="tenant"):
        whose(word="hello")
    with tenant_scope(acme), pytest.raises(TypeError, match="tenant"):
        whose(word="hello")  # not even the tenant in scope is taken for it


def test_a_task_works_for_the_tenant_it_names_and_leaves_none_behind(acme: Tenant, globex: Tenant) -> None:
    with tenant_scope(globex):
        assert whose(word="hello", tenant=str(acme.pk)) == "acme hello"
    assert connection.schema_name == "public"


@pytest.mark.parametrize("state", ["suspended", "deleting"])
def test_a_task_of_a_tenant_that_is_not_served_does_nothing(acme: Tenant, state: str) -> None:
    Tenant.objects.filter(pk=acme.pk).update(state=state)

    assert whose(word="hello", tenant=str(acme.pk)) is None
    assert whose(word="hello", tenant=str(uuid.uuid4())) is None


def test_a_job_is_claimed_once(committed_tenant: Tenant) -> None:
    job = make(committed_tenant)

    outcomes = at_once(8, lambda: fresh(job).claim("worker"))

    assert sorted(map(str, outcomes)) == sorted(map(str, [None, *[JobLost] * 7]))
    assert (fresh(job).attempts, fresh(job).fence) == (1, 1)


def test_a_job_whose_lease_ran_out_is_claimed_once_more(committed_tenant: Tenant) -> None:
    job = make(committed_tenant)
    job.claim("first")
    with pytest.raises(JobLost):
        fresh(job).claim("second")
    expire(job)

    outcomes = at_once(4, lambda: fresh(job).claim("second"))

    assert outcomes.count(None) == 1
    assert (fresh(job).attempts, fresh(job).fence, fresh(job).worker) == (2, 2, "second")


@pytest.mark.parametrize("change", ["renew", "succeed", "report", "fail", "release"])
def test_a_worker_that_was_taken_for_dead_can_no_longer_write(acme: Tenant, change: str) -> None:
    first, second = make(acme), None
    first.claim("first")
    expire(first)
    second = fresh(first)
    second.claim("second")

    arguments = {"report": (50, "half"), "fail": ("x", "y"), "release": (timedelta(),)}.get(change, ())
    with pytest.raises(JobLost):
        getattr(first, change)(*arguments)
    second.succeed()
    assert fresh(first).state == JobState.SUCCEEDED


def test_a_lost_job_leaves_no_result(acme: Tenant) -> None:
    job = make(acme)
    job.claim("worker")
    fresh(job).cancel()

    with tenant_scope(acme):
        with suppress(JobLost), transaction.atomic():
            AuditEvent.objects.create(actor="worker", action="result.write")
            job.succeed()
        assert not AuditEvent.objects.filter(action="result.write").exists()


def test_of_an_end_and_a_cancellation_one_counts(committed_tenant: Tenant) -> None:
    job = make(committed_tenant)
    job.claim("worker")
    turns = iter([job.succeed, fresh(job).cancel])
    turn = threading.Lock()

    def end() -> None:
        with turn:
            act = next(turns)
        act()

    outcomes = at_once(2, end)

    assert outcomes.count(None) == 1
    assert fresh(job).state in (JobState.SUCCEEDED, JobState.CANCELLED)


def test_what_has_ended_cannot_be_cancelled_and_cancelling_twice_is_no_error(acme: Tenant) -> None:
    job = make(acme)
    job.cancel()
    job.cancel()
    done = make(acme)
    done.claim("worker")
    done.succeed()

    with pytest.raises(Conflict):
        done.cancel()


def test_a_job_that_was_lost_too_often_is_abandoned(acme: Tenant) -> None:
    job = make(acme, max_attempts=2)
    for worker in ("first", "second"):
        job.claim(worker)
        job.abandon()
        assert fresh(job).state == JobState.RUNNING
        expire(job)
    with pytest.raises(JobLost):
        job.claim("third")

    jobs.sweep()

    assert (fresh(job).state, fresh(job).error_code) == (JobState.FAILED, "worker_lost")


def test_the_sweep_hints_again_at_what_nobody_took(acme: Tenant, globex: Tenant, monkeypatch: Any) -> None:
    long_ago = timezone.now() - timedelta(minutes=5)
    lost, abandoned = make(acme, hinted_at=long_ago), make(acme)
    abandoned.claim("dead")
    expire(abandoned)
    make(acme, hinted_at=timezone.now())  # hinted just now
    make(acme, due_at=timezone.now() + timedelta(minutes=5))  # not due
    suspended = make(globex, hinted_at=long_ago)
    Tenant.objects.filter(pk=globex.pk).update(state="suspended")
    hinted: list[uuid.UUID] = []
    monkeypatch.setattr(jobs, "send_hint", lambda job, lives: hinted.append(job.pk))

    assert jobs.sweep() == 2
    assert set(hinted) == {lost.pk, abandoned.pk}
    assert suspended.pk not in hinted


def test_one_tenants_many_jobs_do_not_keep_the_sweep_from_anothers(
    acme: Tenant, globex: Tenant, monkeypatch: Any
) -> None:
    long_ago = timezone.now() - timedelta(minutes=10)
    Job.objects.bulk_create(Job(tenant=acme, kind=KIND, object_id="1", due_at=long_ago) for _ in range(700))
    lost = make(globex)
    hinted: list[Job] = []
    monkeypatch.setattr(jobs, "send_hint", lambda job, lives: hinted.append(job))

    jobs.sweep()
    assert len(hinted) == jobs.SWEPT_OF_A_TENANT + 1
    assert lost.pk in {job.pk for job in hinted}
    for _ in range(6):
        jobs.sweep()
    assert len({job.pk for job in hinted}) == len(hinted) == 701  # each sweep takes those that have waited longest


def test_a_job_that_waits_long_is_hinted_at_ever_more_rarely(acme: Tenant, monkeypatch: Any) -> None:
    job, lives = make(acme, hinted_at=timezone.now()), []
    clock = [job.created_at]
    monkeypatch.setattr(jobs, "send_hint", lambda job, life: lives.append((clock[0], life)))
    monkeypatch.setattr("tenants.jobs.timezone.now", lambda: clock[0])

    for _ in range(720):  # an hour of a sweep each 5 s
        clock[0] += timedelta(seconds=5)
        jobs.sweep()

    assert 8 <= len(lives) <= 20
    assert lives[0][0] - job.created_at <= timedelta(seconds=40)
    gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(lives)]
    assert max(gaps) <= timedelta(minutes=10, seconds=5)
    assert all(gap < life for gap, (_, life) in zip(gaps, lives, strict=False))  # one is alive when the next is sent


def test_a_repeated_hint_expires_and_the_first_does_not(acme: Tenant, monkeypatch: Any) -> None:
    sent: list[Any] = []
    monkeypatch.setattr("tenants.jobs.current_app.send_task", lambda kind, **options: sent.append(options["expires"]))
    job = make(acme)

    jobs.send_hint(job)
    jobs.sweep()

    assert sent == [None, 300.0]


def test_a_job_delivered_twice_is_done_once(acme: Tenant) -> None:
    job, done = make(acme), []

    def work(held: Job) -> None:
        done.append(held.pk)
        work_on(str(job.pk), work)  # the second copy arrives while the first is at work
        held.succeed()

    with tenant_scope(acme):
        work_on(str(job.pk), work)
        work_on(str(job.pk), work)

    assert done == [job.pk]
    assert fresh(job).state == JobState.SUCCEEDED


def test_a_fault_of_the_caller_fails_the_job_at_once(acme: Tenant) -> None:
    job = make(acme)

    def work(held: Job) -> None:
        raise Invalid("The target is not a column.", code="no_such_column")

    with tenant_scope(acme):
        work_on(str(job.pk), work)

    assert (fresh(job).state, fresh(job).error_code) == (JobState.FAILED, "no_such_column")


@pytest.mark.parametrize("error", [Unavailable("The model host is away."), RuntimeError("a secret of the inside")])
def test_what_may_pass_is_tried_again_and_then_fails(acme: Tenant, error: Exception) -> None:
    job = make(acme, max_attempts=2)

    def work(held: Job) -> None:
        raise error

    with tenant_scope(acme):
        work_on(str(job.pk), work)
        assert fresh(job).state == JobState.QUEUED
        assert fresh(job).due_at > timezone.now()
        Job.objects.filter(pk=job.pk).update(due_at=timezone.now())
        work_on(str(job.pk), work)

    assert fresh(job).state == JobState.FAILED
    assert "secret" not in fresh(job).error_message


def test_silent_work_keeps_its_lease(committed_tenant: Tenant, monkeypatch: Any) -> None:
    monkeypatch.setattr(jobs, "RENEW_EVERY_S", 0.02)
    job = make(committed_tenant)
    job.claim("worker")
    before = fresh(job).lease_until

    with jobs.held(job):
        _await(lambda: fresh(job).lease_until != before)


def test_one_failed_renewal_loses_no_lease(committed_tenant: Tenant, monkeypatch: Any) -> None:
    monkeypatch.setattr(jobs, "RENEW_EVERY_S", 0.02)
    job = make(committed_tenant)
    job.claim("worker")
    before, renewals = fresh(job).lease_until, []
    renew = job.renew

    def renew_at_the_second_time() -> None:
        renewals.append(1)
        if len(renewals) == 1:
            raise DatabaseError("the connection broke")
        renew()

    monkeypatch.setattr(job, "renew", renew_at_the_second_time)
    with jobs.held(job):
        _await(lambda: fresh(job).lease_until != before)


def test_a_hint_leaves_with_the_commit_alone(committed_tenant: Tenant, monkeypatch: Any) -> None:
    hinted: list[uuid.UUID] = []
    monkeypatch.setattr(jobs, "send_hint", lambda job: hinted.append(job.pk))
    with tenant_scope(committed_tenant):
        with suppress(ValueError), transaction.atomic():
            jobs.submit(KIND, "1")
            raise ValueError
        assert hinted == []
        with transaction.atomic():
            job = jobs.submit(KIND, "1")
            assert hinted == []

    assert hinted == [job.pk]


def _await(claim: Callable[[], bool]) -> None:
    deadline = timezone.now() + timedelta(seconds=10)
    while not claim():
        assert timezone.now() < deadline, "it did not become so"
        threading.Event().wait(0.02)
