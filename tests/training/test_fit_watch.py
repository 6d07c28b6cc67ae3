"""What a fit reports is kept as it comes, and bounded: it may be anybody's program that reports."""

import pytest

from runtimes.client import Progress
from tenants.models import Job
from tenants.scope import tenant_scope
from tests.training.conftest import run_body
from training import fit_watch
from training.fit_watch import FitWatch
from training.models import LOG_CHARS, Run


@pytest.fixture
def watch(acme, scientist, dataset):
    """The watch over a run that a worker has claimed."""
    run_id = scientist.post_json("api/v1/runs", run_body()).json()["id"]
    with tenant_scope(acme):
        job = Job.objects.get(pk=run_id)
        job.claim("tests")
        yield FitWatch(job, Run.objects.get(pk=run_id))


def test_a_flood_of_reports_becomes_few_writes(watch, monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(fit_watch, "REPORT_EVERY_S", 3600.0)
    watch._urgent_left = 3
    for number in range(3):
        watch.on_progress(Progress(number, f"stage {number}", {"loss": 1.0}))
    with django_assert_num_queries(0):
        for number in range(100):
            watch.on_progress(Progress(50.0, f"stage {number}", {"loss": 1.0}))
    assert watch.run.metric_history.count() == 3


def test_of_a_flood_of_lines_the_last_are_kept(watch, monkeypatch):
    monkeypatch.setattr(fit_watch, "LOG_EVERY_S", 3600.0)
    for number in range(3 * fit_watch.MOST_LINES):
        watch.on_progress(Progress(0.0, "", log=f"line {number} ends"))
    assert len(watch._lines) == fit_watch.MOST_LINES
    watch.flush()
    log = Run.objects.get(pk=watch.run.pk).log
    assert f"line {3 * fit_watch.MOST_LINES - 1} ends" in log
    assert len(log) <= LOG_CHARS
