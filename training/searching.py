"""A search's way from its first trial to the version of its best one, a step at a time.

The search's own job never waits for a trial: it asks for the next ones, rests, and is woken when one has ended. So a
search takes no worker from its trials, and any worker may take its next step.
"""

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from common.errors import Invalid
from tenants.models import Job, JobState
from training.fit_watch import finite
from training.models import Purpose, Run
from training.queueing import queue_run
from training.run_requests import CheckedRun, RunRequest, parsed_params
from training.suggestions import Tried, suggest
from training.trials import SEARCH_KIND

REST = timedelta(seconds=5)
MOST_AT_ONCE = 64
BAYES_AT_ONCE = 4
FAILED_IN_A_ROW = 10

__all__ = ["SEARCH_KIND", "advance", "best_of", "cancel_trials"]


def advance(job: Job) -> None:
    """Take the search's next step, and end its job with the last one.

    Raises:
        Invalid: no trial succeeded, or the best one's model could not be made.
    """
    try:
        _advance(job)
    except Invalid:
        cancel_trials(job.pk)
        raise


def cancel_trials(search_id: uuid.UUID) -> None:
    """End the runs of a search that are still open."""
    for child in Job.objects.open().filter(pk__in=Run.objects.filter(parent=search_id).values("job")):
        child.cancel()


def _advance(job: Job) -> None:
    with job.writing():
        related = Run.objects.select_related("dataset_version", "experiment").select_for_update(of=("self",))
        run = related.get(pk=job.pk)
        trials = list(run.trials.filter(purpose=Purpose.TRIAL).select_related("job").order_by("created_at", "pk"))
        final = run.trials.filter(purpose=Purpose.FIT).select_related("job").first()
        if final is not None:
            _end(job, run, final)
            return
        search = run.search or {}
        ended = [trial for trial in trials if trial.job and trial.job.has_ended]
        if len(ended) < search["trials"] and not _is_hopeless(ended):
            _ask_for_more(run, trials, len(trials) - len(ended))
            best = best_of(ended, search)
            job.report(95 * len(ended) / search["trials"], _told(ended, search, best))
        else:
            _fit_best(run, ended)
            job.report(95, "fitting the best one")
        job.postpone(REST)


def best_of(trials: Sequence[Run], search: dict[str, Any]) -> Run | None:
    """The trial that succeeded with the best value; the first of equals. One that was given up cannot be it."""
    sign = -1 if search["direction"] == "min" else 1
    told = [(sign * value, -place, trial) for place, trial in enumerate(trials) if (value := _value(trial)) is not None]
    return max(told, key=lambda one: one[:2])[2] if told else None


def _value(trial: Run) -> float | None:
    told = trial.search or {}
    succeeded = trial.job is not None and trial.job.state == JobState.SUCCEEDED and not told.get("pruned")
    return told.get("value") if succeeded else None


def _is_hopeless(ended: Sequence[Run]) -> bool:
    """Whether the first trials have all failed; then the others would, too."""
    states = [trial.job.state for trial in ended if trial.job]
    return len(states) >= FAILED_IN_A_ROW and set(states) == {JobState.FAILED.value}


def _ask_for_more(run: Run, trials: list[Run], open_count: int) -> None:
    search = run.search or {}
    usual = BAYES_AT_ONCE if search["method"] == "bayes" else MOST_AT_ONCE
    at_once = min(search["parallel"] or usual, MOST_AT_ONCE)
    tried = [
        Tried(
            told["params"],
            told.get("value"),
            has_ended=bool(trial.job and trial.job.has_ended),
            pruned_at=told.get("step") if told.get("pruned") else None,
        )
        for trial in trials
        if (told := trial.search or {})
    ]
    for number in range(len(trials), min(search["trials"], len(trials) + max(0, at_once - open_count))):
        params = suggest(search, number, tried)
        tried.append(Tried(params, None, has_ended=False))
        _queue(run, {**run.params, **params}, Purpose.TRIAL, {"number": number, "params": params})


def _queue(run: Run, params: dict[str, Any], purpose: Purpose, told: dict[str, Any]) -> None:
    assert run.dataset_version is not None
    request = RunRequest(
        trainer=run.trainer,
        dataset="",
        target=run.target,
        model=run.model_name,
        experiment=run.experiment.name if run.experiment else "",
    )
    criterion = run.activate_if if purpose == Purpose.FIT else None
    checked = CheckedRun(run.dataset_version, parsed_params(run.trainer, params), run.validation, criterion)
    queue_run(request, checked, actor=run.created_by, purpose=purpose, parent=run, search=told)


def _fit_best(run: Run, ended: Sequence[Run]) -> None:
    best = best_of(ended, run.search or {})
    if best is None:
        raise Invalid("None of the search's trials succeeded; their logs say why.", code="no_trial_succeeded")
    Run.objects.filter(pk=run.pk).update(search={**(run.search or {}), "best": str(best.pk)}, params=best.params)
    _queue(run, best.params, Purpose.FIT, {"number": (best.search or {})["number"]})
    run.write_log(f"best: trial {(best.search or {})['number']}, {(run.search or {})['metric']} {_value(best):.6g}")


def _end(job: Job, run: Run, final: Run) -> None:
    assert final.job is not None
    if not final.job.has_ended:
        job.postpone(REST)
        return
    if final.job.state != JobState.SUCCEEDED:
        raise Invalid(
            f"The best trial's parameters could not be fitted again: {final.job.error_message or final.job.state}.",
            code="final_fit_failed",
        )
    Run.objects.filter(pk=run.pk).update(
        version=final.version,
        metrics=finite(final.metrics),
        evaluation=final.evaluation,
        libraries=final.libraries,
        code_digest=final.code_digest,
        peak_memory_bytes=final.peak_memory_bytes,
    )
    run.write_log(f"registered {final.version}")
    job.succeed()


def _told(ended: Sequence[Run], search: dict[str, Any], best: Run | None) -> str:
    found = f", best {search['metric']} {_value(best):.6g}" if best else ""
    return f"{len(ended)} of {search['trials']} trials{found}"
