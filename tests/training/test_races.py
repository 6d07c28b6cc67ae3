"""Requests and jobs that meet: whoever comes second finds things as the first one left them."""

import threading

import pytest
from django.db import connection

from models_registry.models import Blob
from tenants import jobs
from tenants.models import Job, Tenant
from tenants.scope import tenant_scope
from tests.training.conftest import run_body, upload
from training import execution
from training.execution import DECISION_KIND, RUN_KIND
from training.models import Dataset, DatasetVersion, Experiment, Run

AT_ONCE = 4


@pytest.fixture
def client(committed_tenant, client_for, settings):
    """A client of a tenant whose rows other threads see."""
    settings.TENANT_REQUESTS_IN_FLIGHT = AT_ONCE
    return client_for(committed_tenant)


def at_once(*requests):
    """The answers to requests that are made at the same moment, each in a thread of its own."""
    start, answers = threading.Barrier(len(requests)), []

    def make(request):
        try:
            start.wait()
            answers.append(request())
        finally:
            connection.close()

    threads = [threading.Thread(target=make, args=[request]) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return answers


def test_the_last_place_goes_to_one_run(committed_tenant, client):
    upload(client)
    Tenant.objects.filter(pk=committed_tenant.pk).update(max_open_runs=1)
    answers = at_once(*[lambda: client.post_json("api/v1/runs", run_body(experiment="spring"))] * AT_ONCE)
    assert sorted(answer.status_code for answer in answers) == [202] + [429] * (AT_ONCE - 1)
    assert Job.objects.filter(tenant=committed_tenant, kind=RUN_KIND).count() == 1
    with tenant_scope(committed_tenant):
        assert (Run.objects.count(), Experiment.objects.count()) == (1, 1)


def test_the_same_file_uploaded_at_once_is_one_version(committed_tenant, client):
    answers = at_once(*[lambda: upload(client)] * AT_ONCE)
    assert sorted(answer.status_code for answer in answers)[-1] == 201
    assert {answer.status_code for answer in answers} <= {200, 201}
    with tenant_scope(committed_tenant):
        assert (Dataset.objects.count(), DatasetVersion.objects.count()) == (1, 1)
        assert Blob.objects.filter(is_stored=True).count() == 1


def test_a_dataset_is_used_or_deleted_and_never_both(committed_tenant, client):
    for _ in range(3):
        upload(client)
        answers = at_once(
            lambda: client.post_json("api/v1/runs", run_body()),
            lambda: client.delete("api/v1/datasets/customers"),
        )
        codes = sorted(answer.status_code for answer in answers)
        assert codes in ([202, 409], [204, 422]), codes
        with tenant_scope(committed_tenant):
            Run.objects.all().delete()


@pytest.mark.usefixtures("model_host")
def test_a_cancellation_at_the_last_moment_waits_for_the_end(committed_tenant, client, monkeypatch):
    """The end and the cancellation each write the run's row and its job's: in one order, or one of them dies."""
    upload(client)
    run = client.post_json("api/v1/runs", run_body(activate_if={"metric": "accuracy"})).json()
    answers = []

    def cancel():
        answers.append(client.post(f"api/v1/runs/{run['id']}/cancel"))
        connection.close()

    canceller, submit = threading.Thread(target=cancel), jobs.submit

    def submitted_while_somebody_cancels(*args, **named):
        canceller.start()
        canceller.join(0.5)  # it waits at a row by now
        return submit(*args, **named)

    monkeypatch.setattr(jobs, "submit", submitted_while_somebody_cancels)
    with tenant_scope(committed_tenant):
        jobs.work_on(run["id"], execution.work)
    canceller.join(10)
    job = Job.objects.get(pk=run["id"])
    assert (job.state, [answer.status_code for answer in answers]) == ("succeeded", [409])


def test_training_waits_in_its_queue_and_deciding_does_not():
    from celery import current_app

    from training import tasks

    assert (tasks.run.name, tasks.decide_activation.name) == (RUN_KIND, DECISION_KIND)
    queues = {kind: current_app.amqp.router.route({}, kind)["queue"].name for kind in (RUN_KIND, DECISION_KIND)}
    assert queues == {RUN_KIND: "training", DECISION_KIND: "default"}
