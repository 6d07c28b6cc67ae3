"""A run is fitted by one worker at a time, whatever happens to workers, fits and messages."""

import os
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from django.db import connection
from django.utils import timezone

from models_registry import execution as registry_execution
from models_registry import services as registry
from models_registry.models import Activation, Deployment, ModelVersion, RegisteredModel
from runtimes.client import HostClient
from tenants import jobs
from tenants.models import Job, JobState
from tenants.scope import tenant_scope
from tests.training.conftest import run_body, upload
from training import activation, execution, services
from training.models import Run, RunMetric
from training.run_requests import RunRequest

pytestmark = pytest.mark.usefixtures("model_host")


def submitted(tenant, client, **changes):
    """A run of the tenant on its dataset `customers`, which is there afterwards."""
    upload(client)
    with tenant_scope(tenant):
        return services.submit_run(request=RunRequest(**run_body(**changes)), actor="tests")


def work(tenant, run_or_job):
    """Work on the job as a worker to whom a message of it was delivered."""
    with tenant_scope(tenant):
        jobs.work_on(str(run_or_job.pk), execution.train if isinstance(run_or_job, Run) else DECIDE)


DECIDE = execution.decide_activation


def seen(tenant, run):
    """The run as it is now, with its job."""
    with tenant_scope(tenant):
        return Run.objects.select_related("job", "version__model").get(pk=run.pk)


def decision_job(tenant, run):
    return Job.objects.get(tenant=tenant, kind=execution.DECISION_KIND, object_id=run.pk.hex)


def inspect(tenant, version):
    """Have the version inspected."""
    with tenant_scope(tenant):
        jobs.work_on(str(version.inspection_job_id), registry_execution.inspect)
        version.refresh_from_db()


class Worker(threading.Thread):
    """Works on a job in a thread with a connection of its own."""

    def __init__(self, tenant, run):
        super().__init__(daemon=True)
        self.tenant, self.run_row = tenant, run
        self.start()

    def run(self):
        try:
            work(self.tenant, self.run_row)
        finally:
            connection.close()


def eventually(condition, timeout_s=20):
    """What the condition says once it is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return found


def fitting(run):
    """Whether the run's fit is under way."""
    job = Job.objects.get(pk=run.pk)
    return job.state == JobState.RUNNING and job.progress_stage == "fitting"


SLOW = {"trainer": "random_forest_classifier", "params": {"n_estimators": 5000}}


@pytest.fixture
def tenant(committed_tenant):
    """A tenant whose rows other threads see."""
    return committed_tenant


@pytest.fixture
def client(tenant, client_for):
    return client_for(tenant)


def test_a_run_becomes_a_version_with_what_was_measured(acme, scientist):
    run = submitted(acme, scientist, experiment="spring")
    work(acme, run)
    run = seen(acme, run)
    assert run.state == "succeeded", run.job.error_message
    assert run.job.progress_percent == 100
    assert run.metrics.keys() == {"accuracy", "f1", "log_loss", "roc_auc"}
    assert run.libraries["scikit-learn"]
    assert run.duration_s > 0
    assert run.peak_memory_bytes > 0
    version = run.version
    assert (version.number, version.model.name, version.source_run) == (1, "churn", run.pk)
    assert version.metrics_measured == run.metrics
    assert version.measured_on["dataset"] == "customers"
    assert version.params == run.params
    assert [field["name"] for field in version.metadata["signature"]["inputs"]] == ["age", "city", "spent"]
    assert version.metadata["input_example"]["columns"] == ["age", "city", "spent"]
    assert version.created_by == "tests"


def test_a_runs_version_passes_its_inspection(acme, scientist):
    run = submitted(acme, scientist)
    work(acme, run)
    version = seen(acme, run).version
    inspect(acme, version)
    assert version.is_ready, version.rejection_reason


def test_progress_metrics_and_log_are_kept(acme, scientist):
    run = submitted(acme, scientist)
    work(acme, run)
    with tenant_scope(acme):
        history = {(row.key, row.step): row.value for row in RunMetric.objects.filter(run=run)}
        log = Run.objects.get(pk=run.pk).log
    assert history[("accuracy", 0)] == seen(acme, run).metrics["accuracy"]
    for stage in ("attempt 1 of 3 starts", "reading", "fitting", "evaluating", "registered churn v1"):
        assert stage in log


def test_the_same_run_again_measures_the_same(acme, scientist):
    first, second = (submitted(acme, scientist) for _ in range(2))
    for run in (first, second):
        work(acme, run)
    assert seen(acme, first).metrics == seen(acme, second).metrics
    assert seen(acme, second).version.number == 2


def test_a_regression_is_measured_as_one(acme, scientist):
    run = submitted(acme, scientist, trainer="linear_regression", target="spent", params={})
    work(acme, run)
    assert seen(acme, run).metrics.keys() == {"mae", "rmse", "r2"}


def test_a_second_delivery_does_nothing(acme, scientist):
    run = submitted(acme, scientist)
    work(acme, run)
    work(acme, run)
    assert seen(acme, run).job.attempts == 1
    with tenant_scope(acme):
        assert ModelVersion.objects.count() == 1


def test_two_deliveries_at_once_make_one_version(tenant, client):
    run = submitted(tenant, client)
    for worker in [Worker(tenant, run) for _ in range(2)]:
        worker.join(60)
    assert seen(tenant, run).state == "succeeded"
    with tenant_scope(tenant):
        assert ModelVersion.objects.count() == 1
        assert Job.objects.filter(tenant=tenant, kind="models_registry.inspect").count() == 1


def test_a_cancelled_run_stops_within_two_seconds_and_leaves_no_version(tenant, client):
    run = submitted(tenant, client, **SLOW)
    worker = Worker(tenant, run)
    eventually(lambda: fitting(run))
    assert client.post(f"api/v1/runs/{run.pk}/cancel").status_code == 200
    asked_at = time.monotonic()
    worker.join(20)
    assert time.monotonic() - asked_at < 2
    assert seen(tenant, run).state == "cancelled"
    with tenant_scope(tenant):
        assert not ModelVersion.objects.exists()
        assert not RegisteredModel.objects.exists()


def test_a_worker_that_lost_its_lease_writes_nothing(tenant, client):
    run = submitted(tenant, client, **SLOW)
    worker = Worker(tenant, run)
    eventually(lambda: fitting(run))
    other = Job.objects.get(pk=run.pk)
    # As if the first worker had been silent for a lease; its renewals come every five seconds.
    Job.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    other.claim("other")
    worker.join(20)
    assert not worker.is_alive()
    job = Job.objects.get(pk=run.pk)
    assert (job.state, job.fence, job.worker) == ("running", other.fence, "other")
    with tenant_scope(tenant):
        assert not ModelVersion.objects.exists()


def test_a_lease_lost_at_the_last_moment_leaves_no_version(acme, scientist, monkeypatch):
    run = submitted(acme, scientist)
    store_bundle = execution.store_bundle  # type: ignore[attr-defined]

    def stored_while_another_claims(files):
        bundle = store_bundle(files)
        Job.objects.filter(pk=run.pk).update(fence=99)
        return bundle

    monkeypatch.setattr(execution, "store_bundle", stored_while_another_claims)
    work(acme, run)
    assert seen(acme, run).version is None
    with tenant_scope(acme):
        assert not RegisteredModel.objects.exists()


def test_a_run_whose_worker_was_killed_is_taken_up_by_another(acme, scientist):
    run = submitted(acme, scientist)
    Job.objects.get(pk=run.pk).claim("killed")
    with tenant_scope(acme):
        RunMetric.objects.create(run=run, key="accuracy", value=0.1, at=timezone.now())
    work(acme, run)
    assert seen(acme, run).state == "running"
    Job.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    work(acme, run)
    run = seen(acme, run)
    assert (run.state, run.job.attempts) == ("succeeded", 2)
    with tenant_scope(acme):
        assert RunMetric.objects.get(run=run, key="accuracy").value == run.metrics["accuracy"]


def test_a_run_that_loses_every_worker_fails_with_the_reason(acme, scientist):
    run = submitted(acme, scientist)
    for _ in range(3):
        Job.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        Job.objects.get(pk=run.pk).claim("killed")
    Job.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1), hinted_at=None)
    jobs.sweep()
    shown = scientist.get(f"api/v1/runs/{run.pk}").json()
    assert (shown["state"], shown["attempts"]) == ("failed", 3)
    assert shown["error"]["code"] == "worker_lost"


def kill_the_fit(model_host):
    """Kill the runner that fits now, as the kernel would for want of memory."""
    zygotes = set(HostClient(model_host).stats().zygotes.values())
    host = psutil.Process(next(iter(zygotes))).parent()
    assert host is not None
    runners = [child for child in host.children() if child.pid not in zygotes]
    assert len(runners) == 1
    os.kill(runners[0].pid, signal.SIGKILL)


def test_a_killed_fit_is_tried_again_and_then_fails_with_the_reason(tenant, client, model_host):
    run = submitted(tenant, client, **SLOW)
    HostClient(model_host).clear()
    for attempt in (1, 2, 3):
        Job.objects.filter(pk=run.pk).update(due_at=timezone.now())
        worker = Worker(tenant, run)
        eventually(lambda: fitting(run))
        kill_the_fit(model_host)
        worker.join(20)
        job = Job.objects.get(pk=run.pk)
        assert job.attempts == attempt
        assert job.state == ("queued" if attempt < 3 else "failed")
        assert job.progress_stage != "registering"
        Job.objects.filter(pk=run.pk).update(progress_stage="")
    assert job.error_code == "runner_died", job.error_message
    assert "The fit was killed" in job.error_message
    with tenant_scope(tenant):
        assert not ModelVersion.objects.exists()


def test_data_that_cannot_be_fitted_fails_the_run_at_once(acme, scientist):
    upload(scientist, "constant", b"age,left\n" + b"1,yes\n" * 50)
    run = submitted(acme, scientist, dataset="constant")
    work(acme, run)
    job = seen(acme, run).job
    assert (job.state, job.attempts) == ("failed", 1)
    assert "one class" in job.error_message
    with tenant_scope(acme):
        assert "one class" in Run.objects.get(pk=run.pk).log


def test_without_a_model_host_the_run_waits_and_then_fails_with_the_reason(acme, scientist, settings, tmp_path):
    settings.MODELS_SOCKET = str(tmp_path / "nobody.sock")
    run = submitted(acme, scientist)
    for _ in range(3):
        Job.objects.filter(pk=run.pk).update(due_at=timezone.now())
        work(acme, run)
    job = seen(acme, run).job
    assert (job.state, job.attempts, job.error_code) == ("failed", 3, "host_unavailable")


def test_a_tenant_without_room_has_its_run_fail(acme, scientist):
    run = submitted(acme, scientist)
    acme.max_storage_bytes = 1
    work(acme, run)
    assert seen(acme, run).job.error_code == "quota_exceeded"
    with tenant_scope(acme):
        assert not RegisteredModel.objects.exists()


def test_a_data_set_and_a_spooled_file_leave_nothing_on_the_disk(acme, scientist, settings):
    run = submitted(acme, scientist)
    work(acme, run)
    assert not list(Path(settings.FILE_UPLOAD_TEMP_DIR).iterdir())


# --- activate_if ---

FIRST = {"activate_if": {"metric": "accuracy", "margin": 0.0}}


def trained(tenant, client, **changes):
    """A run that has succeeded, its version inspected."""
    run = submitted(tenant, client, **changes)
    work(tenant, run)
    run = seen(tenant, run)
    inspect(tenant, run.version)
    return run


def serving(tenant, name="churn"):
    with tenant_scope(tenant):
        deployment = Deployment.objects.filter(model__name=name).first()
        return deployment.version.number if deployment and deployment.version else None


def test_a_first_version_that_has_the_metric_is_activated(acme, scientist):
    run = trained(acme, scientist, **FIRST)
    assert run.activation_decision["state"] == "pending"
    work(acme, decision_job(acme, run))
    assert serving(acme) == 1
    decision = seen(acme, run).activation_decision
    assert (decision["state"], decision["value"]) == ("activated", run.metrics["accuracy"])
    with tenant_scope(acme):
        activation = Activation.objects.get()
        assert (activation.actor, activation.reason) == ("tests", decision["reason"])
        assert activation.criteria["value"] == run.metrics["accuracy"]


def test_a_version_that_is_no_better_is_not_activated(acme, scientist):
    first = trained(acme, scientist, **FIRST)
    work(acme, decision_job(acme, first))
    second = trained(acme, scientist, **FIRST)
    work(acme, decision_job(acme, second))
    assert serving(acme) == 1
    decision = seen(acme, second).activation_decision
    assert decision["state"] == "kept"
    assert (decision["active_version"], decision["gain"]) == (1, 0)


def test_a_better_version_takes_over(acme, scientist):
    first = trained(acme, scientist, **FIRST)
    work(acme, decision_job(acme, first))
    with tenant_scope(acme):
        ModelVersion.objects.filter(pk=first.version.pk).update(metrics_measured={"accuracy": 0.1})
    second = trained(acme, scientist, **FIRST)
    work(acme, decision_job(acme, second))
    assert serving(acme) == 2


def test_a_decision_delivered_twice_activates_once(acme, scientist):
    run = trained(acme, scientist, **FIRST)
    for _ in range(2):
        work(acme, decision_job(acme, run))
    with tenant_scope(acme):
        assert Activation.objects.count() == 1


def test_a_decision_waits_for_the_inspection(acme, scientist, monkeypatch):
    monkeypatch.setattr(activation, "INSPECTION_WAIT_S", 0.1)
    run = submitted(acme, scientist, **FIRST)
    work(acme, run)
    work(acme, decision_job(acme, run))
    job = decision_job(acme, run)
    assert job.state == "queued"
    assert job.due_at > timezone.now()
    inspect(acme, seen(acme, run).version)
    Job.objects.filter(pk=job.pk).update(due_at=timezone.now())
    work(acme, job)
    assert serving(acme) == 1


def test_an_inspection_that_never_ends_is_given_up(acme, scientist, monkeypatch):
    monkeypatch.setattr(activation, "INSPECTION_WAIT_S", 0.1)
    run = submitted(acme, scientist, **FIRST)
    work(acme, run)
    Job.objects.filter(pk=decision_job(acme, run).pk).update(max_attempts=1)
    work(acme, decision_job(acme, run))
    assert decision_job(acme, run).state == "succeeded"
    decision = seen(acme, run).activation_decision
    assert decision["state"] == "kept"
    assert "did not come to an end" in decision["reason"]


def test_a_deleted_version_is_not_decided_about(acme, scientist):
    run = trained(acme, scientist, **FIRST)
    with tenant_scope(acme):
        registry.delete_version(version=run.version, actor="tests")
    work(acme, decision_job(acme, run))
    assert "deleted" in seen(acme, run).activation_decision["reason"]
    assert serving(acme) is None


def test_a_decision_holds_against_what_serves_when_it_is_written(acme, scientist, monkeypatch):
    plain = trained(acme, scientist)
    run = trained(acme, scientist, **FIRST)
    decide = activation.decide  # type: ignore[attr-defined]

    def decided_while_somebody_activates(criterion, candidate, active):
        decision = decide(criterion, candidate, active)
        registry.activate(version=plain.version, actor="somebody")
        return decision

    monkeypatch.setattr(activation, "decide", decided_while_somebody_activates)
    work(acme, decision_job(acme, run))
    assert serving(acme) == plain.version.number
    decision = seen(acme, run).activation_decision
    assert (decision["state"], decision["active_version"]) == ("kept", plain.version.number)


def test_waiting_for_a_run_includes_its_decision(acme, client_for, scientist):
    run = submitted(acme, scientist, **FIRST)
    work(acme, run)
    shown = client_for(acme).get(f"api/v1/runs/{run.pk}?wait=0.3").json()
    assert (shown["state"], shown["activation_decision"]["state"]) == ("succeeded", "pending")
    inspect(acme, seen(acme, run).version)
    work(acme, decision_job(acme, run))
    shown = client_for(acme).get(f"api/v1/runs/{run.pk}?wait=30").json()
    assert (shown["version"], shown["activation_decision"]["state"]) == (1, "activated")
