"""What becomes of answers that nobody fetches any more, and of jobs that ended long ago."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import current_app
from django.utils import timezone

from inference import execution
from inference.models import AsyncPrediction
from tenants import jobs
from tenants.models import Job, JobState
from tenants.scope import tenant_scope
from training.models import Run


@pytest.fixture(autouse=True)
def here(acme: Any) -> Iterator[Any]:
    """The tenant acme, in scope."""
    with tenant_scope(acme):
        yield acme


def job(kind: str, days: int, state: str = JobState.SUCCEEDED) -> Job:
    """A job that was asked for, and ended, so many days ago."""
    at = timezone.now() - timedelta(days=days)
    made = jobs.submit(kind, uuid.uuid4().hex)
    Job.objects.filter(pk=made.pk).update(
        state=state, created_at=at, finished_at=None if state == JobState.QUEUED else at
    )
    return made


def prediction(days: int, state: str = JobState.SUCCEEDED) -> AsyncPrediction:
    """One that was asked for so many days ago."""
    made = job(execution.KIND, days, state)
    row = AsyncPrediction.objects.create(id=made.pk, job=made, model_name="churn", request={})
    AsyncPrediction.objects.filter(pk=row.pk).update(created_at=timezone.now() - timedelta(days=days))
    return row


def test_answers_go_after_a_week_with_their_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "SWEEP_BATCH", 2)
    kept = {prediction(6).pk, prediction(8, JobState.QUEUED).pk}
    for _ in range(5):
        prediction(8)

    assert execution.sweep() == 10

    assert set(AsyncPrediction.objects.values_list("pk", flat=True)) == kept
    assert set(Job.objects.values_list("pk", flat=True)) == kept


def test_jobs_go_after_a_month_unless_a_row_points_at_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PRUNE_BATCH", 2)
    run = job("training.run", 400)
    Run.objects.create(job=run, trainer="linear")
    kept = {run.pk, job("models_registry.inspect", 29).pk, job("models_registry.inspect", 31, JobState.QUEUED).pk}
    for kind in ("models_registry.inspect", "training.decide_activation", "training.run"):
        job(kind, 31)

    assert execution.sweep() == 3

    assert set(Job.objects.values_list("pk", flat=True)) == kept


def test_another_tenants_jobs_are_pruned_by_its_own_rows(globex: Any) -> None:
    with tenant_scope(globex):
        theirs = job("training.run", 400)
        Run.objects.create(job=theirs, trainer="linear")

    execution.sweep()

    assert Job.objects.filter(pk=theirs.pk).exists()


def test_the_clock_sends_it_to_the_workers_of_what_can_wait() -> None:
    routed = current_app.amqp.router.route({}, "inference.sweep")
    assert routed["queue"].name == "default"
    assert "inference.sweep" in {entry["task"] for entry in current_app.conf.beat_schedule.values()}
