"""How a trial of a search ends, and how its search hears of it."""

from django.utils import timezone

from runtimes.client import FitReport
from tenants import jobs
from tenants.models import Job, JobState
from training.fit_watch import TrialPruned, finite
from training.models import Run

SEARCH_KIND = "training.search"


def end_trial(job: Job, run: Run, report: FitReport, code_digest: str) -> None:
    """Keep what a trial measured; its artifact is thrown away, as only the best one's is wanted."""
    metrics = finite(report.metrics)
    metric = ((run.parent.search if run.parent else None) or {}).get("metric", "")
    with job.writing():
        Run.objects.filter(pk=run.pk).update(
            metrics=metrics,
            evaluation=report.evaluation.model_dump(mode="json"),
            search={**(run.search or {}), "value": metrics.get(metric), "pruned": False},
            code_digest=code_digest,
            libraries=report.libraries,
            duration_s=report.duration_s,
            peak_memory_bytes=report.peak_memory_bytes,
        )
        job.succeed()


def end_pruned(job: Job, run: Run, pruned: TrialPruned) -> None:
    """Note where a trial was given up."""
    with job.writing():
        search = {**(run.search or {}), "value": pruned.value, "pruned": True, "step": pruned.step}
        Run.objects.filter(pk=run.pk).update(search=search)
        run.write_log(f"given up: {pruned}")
        job.succeed()


def nudge_search(job: Job) -> None:
    """Have the search of a run go on now, if the run is part of one and has ended."""
    parent_id = Run.objects.filter(pk=job.pk).values_list("parent", flat=True).first()
    if parent_id is None:
        return
    resting = Job.objects.filter(pk=parent_id, kind=SEARCH_KIND, state=JobState.QUEUED)
    resting.update(due_at=timezone.now(), hinted_at=timezone.now())
    if (search := resting.first()) is not None:
        jobs.send_hint(search)
