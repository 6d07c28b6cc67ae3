"""Tenants take turns at the training workers, whatever the order in which they asked."""

from datetime import timedelta

import pytest
from django.utils import timezone

from tenants.models import Job, JobState
from tenants.scope import tenant_scope
from tests.training.conftest import run_body, upload
from training import execution, tasks, turns
from training.execution import RUN_KIND
from training.models import Run


@pytest.fixture
def worked(monkeypatch):
    """The runs in the order in which workers took them; each ends at once."""
    taken = []

    def work(job):
        taken.append(job)
        job.succeed()

    monkeypatch.setattr(execution, "work", work)
    return taken


def queue(client, count):
    upload(client)
    return [client.post_json("api/v1/runs", run_body()).json()["id"] for _ in range(count)]


def hint(tenant, run_id):
    """Have a worker read the hint of this run."""
    tasks.run(tenant=str(tenant.pk), job_id=run_id)


def test_a_single_run_waits_for_one_run_of_a_tenant_with_a_hundred(acme, globex, client_for, worked):
    acme.max_open_runs = 200
    acme.save()
    many = queue(client_for(acme), 100)
    [one] = queue(client_for(globex), 1)
    for run_id in many[:2]:
        hint(acme, run_id)
    assert [job.tenant for job in worked] == [acme, globex]
    assert str(worked[1].pk) == one


def test_every_hint_works_on_one_run_until_none_is_left(acme, globex, client_for, worked):
    runs = [(acme, run) for run in queue(client_for(acme), 3)] + [(globex, run) for run in queue(client_for(globex), 2)]
    for tenant, run_id in [*runs, *runs]:
        hint(tenant, run_id)
    assert {str(job.pk) for job in worked} == {run_id for _, run_id in runs}
    assert [job.tenant.tenant_id for job in worked] == ["acme", "globex", "acme", "globex", "acme"]


def test_a_tenant_has_no_more_runs_at_once_than_it_may(acme, client_for, worked):
    acme.max_running_runs = 2
    acme.save()
    runs = queue(client_for(acme), 3)
    for run_id in runs[:2]:
        Job.objects.get(pk=run_id).claim("elsewhere")
    hint(acme, runs[2])
    assert worked == []
    Job.objects.filter(pk=runs[0]).update(state=JobState.SUCCEEDED)
    hint(acme, runs[2])
    assert [str(job.pk) for job in worked] == [runs[2]]


def test_a_lost_worker_holds_no_place(acme, client_for, worked):
    acme.max_running_runs = 1
    acme.save()
    [first, second] = queue(client_for(acme), 2)
    Job.objects.get(pk=first).claim("lost")
    Job.objects.filter(pk=first).update(lease_until=timezone.now() - timedelta(seconds=1))
    hint(acme, first)
    hint(acme, second)
    assert {str(job.pk) for job in worked} == {first, second}


def test_runs_of_a_suspended_tenant_wait(acme, globex, client_for, worked):
    queue(client_for(acme), 1)
    [run_id] = queue(client_for(globex), 1)
    acme.state = "suspended"
    acme.save()
    hint(globex, run_id)
    hint(globex, run_id)
    assert [job.tenant for job in worked] == [globex]


def test_a_claimed_run_that_is_lost_is_hinted_at_again_when_its_lease_is_over(acme, client_for):
    [run_id] = queue(client_for(acme), 1)
    job = Job.objects.get(pk=run_id)
    job.claim("lost")
    over = timezone.now() + timedelta(seconds=31)
    assert job in Job.objects.unheard(over)
    assert turns.whose_turn().filter(kind=RUN_KIND).count() == 0
    with tenant_scope(acme):
        assert Run.objects.get(pk=run_id).state == "running"
