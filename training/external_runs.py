"""Runs that clients execute somewhere else and log here: begun, logged to, ended; and the files beside them.

They stand in the tables of the platform's own runs, so lists, filters and comparisons show both.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO

from django.db import transaction
from django.utils import timezone

from common.errors import Conflict, Denied, Invalid
from models_registry.blobs import IncomingFile, store_bundle
from models_registry.metadata import storable_fault
from models_registry.models import is_name
from models_registry.paths import check_path
from models_registry.quota import check_room, claim_room
from tenants.audit import record
from tenants.models import JobState
from tenants.models.jobs import ENDED
from training.models import Experiment, Run, RunArtifact, RunKind, RunMetric
from training.run_requests import MAX_EXPERIMENT_CHARS

MOST_METRICS_AT_ONCE = 1_000
MOST_METRICS, MOST_HISTORY = 1_000, 100_000  # keys of a run, and values
MOST_PARAMS, MOST_TAGS, MOST_INPUTS, MOST_ARTIFACTS = 1_000, 1_000, 100, 1_000
PARAM_CHARS, TAG_CHARS, INPUT_CHARS = 6_000, 8_000, 65_535
MOST_JSON_CHARS = 1 << 20  # of all params, all tags or all inputs of a run


@dataclass(frozen=True)
class LoggedMetric:
    """One value. at: when it was measured."""

    key: str
    value: float
    step: int
    at: datetime


@dataclass(frozen=True)
class Logged:
    """What a client logs at once. inputs: datasets, as `Run.inputs` has them."""

    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[LoggedMetric] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    inputs: Sequence[Mapping[str, Any]] = ()


@transaction.atomic
def begin_run(
    *, name: str, experiment: str, model: str, started_at: datetime | None, logged: Logged, actor: str
) -> Run:
    """A running external run, with what was logged at once.

    Raises:
        Invalid: a name is none, or what was logged cannot be kept.
    """
    faults = {}
    if len(experiment) > MAX_EXPERIMENT_CHARS:
        faults["experiment"] = f"An experiment's name has at most {MAX_EXPERIMENT_CHARS} characters."
    if model and not is_name(model):
        faults["model"] = "A model's name is 1 to 100 of A-Z, a-z, 0-9, '.', '_', '-'."
    if fault := storable_fault([name, experiment]):
        faults["name"] = f"The value {fault}."
    if faults:
        raise Invalid("This run cannot be begun as it was asked for; `fields` says why.", fields=faults)
    run = Run.objects.create(
        kind=RunKind.EXTERNAL,
        external_state=JobState.RUNNING,
        name=name,
        experiment=Experiment.objects.get_or_create(name=experiment)[0] if experiment else None,
        model_name=model,
        started_at=started_at or timezone.now(),
        created_by=actor,
    )
    _keep(run, logged)
    record(actor=actor, action="run.begin", target=str(run), name=name)
    return run


@transaction.atomic
def log_to_run(*, run: Run, logged: Logged) -> None:
    """Add to a run: all of it or nothing. One that has ended takes what comes late.

    Raises:
        Invalid: it cannot be kept. Conflict: a parameter has another value already.
        Denied: the run has as many values as a run may have.
    """
    _keep(Run.objects.select_for_update(of=("self",), no_key=True).get(pk=run.pk), logged)


@transaction.atomic
def update_run(*, run: Run, changes: Mapping[str, Any], actor: str) -> Run:
    """The run with another name, state or end; a state that ends it sets its end, unless that was told.

    changes: any of `name`, `state`, `finished_at`.
    """
    held = Run.objects.select_for_update(of=("self",), no_key=True).get(pk=run.pk)
    held.name = changes.get("name", held.name)
    held.external_state = changes.get("state", held.external_state)
    if held.external_state in ENDED:
        held.finished_at = changes.get("finished_at") or held.finished_at or timezone.now()
        began = held.started_at or held.created_at
        held.duration_s = max(0.0, (held.finished_at - began).total_seconds())
    else:
        held.finished_at = held.duration_s = None
    held.save(update_fields=["name", "external_state", "finished_at", "duration_s"])
    if "state" in changes:
        record(actor=actor, action=f"run.{held.external_state}", target=str(held), name=held.name)
    return held


def keep_artifact(*, run: Run, path: str, file: BinaryIO, size_bytes: int) -> RunArtifact:
    """A file of the run, at a path; what was there before is replaced.

    Raises:
        Invalid: no file may have this path. TooLarge, Denied: there is no room for it.
        Conflict: the run has as many files as a run may have.
    """
    check_path(path)
    check_room(size_bytes)
    bundle = store_bundle([IncomingFile(path=path, file=file)])
    with transaction.atomic():
        Run.objects.select_for_update(of=("self",), no_key=True).get(pk=run.pk)
        claim_room(bundle)
        if run.artifacts.exclude(path=path).count() >= MOST_ARTIFACTS:
            raise Conflict(f"A run has at most {MOST_ARTIFACTS} files.", code="too_many_artifacts")
        artifact, _ = RunArtifact.objects.update_or_create(run=run, path=path, defaults={"bundle": bundle})
    return artifact


def _keep(run: Run, logged: Logged) -> None:
    """Add to a run whose row this transaction holds."""
    faults: dict[str, str] = {}
    params, tags = {**run.params, **logged.params}, {**run.tags, **logged.tags}
    inputs = _with_inputs(run.inputs, logged.inputs)
    for name, told, most in (
        ("params", params, MOST_PARAMS),
        ("tags", tags, MOST_TAGS),
        ("inputs", inputs, MOST_INPUTS),
    ):
        if fault := _size_fault(told, most):
            faults[name] = fault
    if faults:
        raise Invalid("This cannot be kept with the run; `fields` says why.", fields=faults)
    for name, value in logged.params.items():
        if name in run.params and run.params[name] != value:
            raise Conflict(f"The parameter '{name[:100]}' has another value already; log it by another name.")
    run.params, run.tags, run.inputs = params, tags, inputs
    if logged.metrics:
        run.metrics = {**run.metrics, **_added(run, logged.metrics)}
    run.save(update_fields=["params", "tags", "inputs", "metrics"])


def _size_fault(told: Any, most: int) -> str:
    if fault := storable_fault(told):
        return f"The value {fault}."
    if len(told) > most:
        return f"A run has at most {most} of them."
    if len(json.dumps(told)) > MOST_JSON_CHARS:
        return f"All of a run's are at most {MOST_JSON_CHARS} characters of JSON."
    return ""


def _with_inputs(known: Sequence[Mapping[str, Any]], more: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those that were known, and what is new or newly described; a dataset is known by its name and digest."""
    found = {(one["name"], one["digest"]): dict(one) for one in [*known, *more]}
    return list(found.values())


def _added(run: Run, metrics: Sequence[LoggedMetric]) -> dict[str, float]:
    """The last value of each of these metrics, once they are in the history."""
    keys = {metric.key for metric in metrics}
    if len(keys | run.metrics.keys()) > MOST_METRICS:
        raise Invalid("This cannot be kept with the run.", fields={"metrics": f"A run has at most {MOST_METRICS}."})
    if run.metric_history.count() + len(metrics) > MOST_HISTORY:
        raise Denied(f"A run's history has at most {MOST_HISTORY} values.", code="history_full")
    RunMetric.objects.bulk_create(
        RunMetric(run=run, key=metric.key, value=metric.value, step=metric.step, at=metric.at) for metric in metrics
    )
    last = run.metric_history.filter(key__in=keys).order_by("key", "-step", "-at", "-value", "-pk").distinct("key")
    return dict(last.values_list("key", "value"))
