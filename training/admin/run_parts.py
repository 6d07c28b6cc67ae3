"""The blocks of a run's page: what it was asked, how far it is, and what was measured."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.utils.safestring import SafeString

from runtimes.measured import Evaluation
from runtimes.trainers import TRAINERS
from tenants.site.pages import page_url
from tenants.site.parts import Facts, Part, Table, Text, link, number, size, when
from tenants.site.plots import Plot, bars, histogram, lines, matrix, scatter
from tenants.site.work import progress_of, state_label
from training.comparison import Curve, curves_of
from training.models import CUSTOM, Purpose, Run, Search

MOST_CURVES = 8
MOST_ARTIFACTS = 100
SHOWN_COLUMNS = 20
ID_CHARS = 8


def run_name(run: Run) -> str:
    """What a run is called in a list: its own name, or what it is."""
    if run.name:
        return run.name
    if run.purpose == Purpose.EVALUATION:
        return "Evaluation"
    if run.purpose == Purpose.TRIAL:
        return f"Trial {(run.search or {}).get('number')}"
    trainer = TRAINERS.get(run.trainer)
    return trainer.title if trainer else "Own program" if run.trainer == CUSTOM else run.get_kind_display()


def short_name(run: Run) -> str:
    """The name with the beginning of the id, for who has many of the same name."""
    return f"{run_name(run)} {str(run.pk)[:ID_CHARS]}"


def run_url(run: Run) -> str:
    """The path of its page: a search has pages of its own."""
    return page_url(Search if run.purpose == Purpose.SEARCH else Run, "change", run.pk)


def facts_part(run: Run) -> Part:
    """What a run is, was asked to do, and made."""
    job, version = run.job, run.version
    facts = {
        "State": state_label(run.state),
        "Progress": progress_of(run.job),
        "Error": job.error_message if job else "",
        "Made": link(page_url(version, "change", version.pk), version) if version else "",
        "Trainer": run_name(run) if run.trainer else "",
        "Dataset": _dataset_link(run),
        "Target": run.target,
        "Model": run.model_name,
        "Judged": validation_words(run.validation),
        "Experiment": run.experiment.name if run.experiment else "",
        "Search": link(page_url(Search, "change", run.parent_id), "The search that it is part of")
        if run.parent_id
        else "",
        "Asked for by": run.created_by,
        "Created": when(run.created_at),
        "Started": when(job.started_at if job else run.started_at),
        "Ended": when(job.finished_at if job else run.finished_at),
        "Took": f"{run.duration_s:.1f} s" if run.duration_s is not None else "",
        "Attempts": f"{job.attempts} of {job.max_attempts}" if job and job.attempts > 1 else "",
    }
    return Part("Run", Facts(facts))


def validation_words(validation: Mapping[str, Any]) -> str:
    """How a run is judged, in words."""
    match validation.get("kind"):
        case "holdout":
            return f"on {validation.get('fraction', 0.2):.0%} of the rows, held out (seed {validation.get('seed', 0)})"
        case "kfold":
            return f"by {validation.get('folds')} folds (seed {validation.get('seed', 0)})"
        case "none":
            return "not at all"
    return ""


def metrics_part(run: Run) -> Part:
    """The metrics; those that a program said of itself stand apart."""
    rows = [(name, number(value), "") for name, value in sorted(run.metrics.items())]
    rows += [(name, number(value), "as its program says") for name, value in sorted(run.metrics_reported.items())]
    empty = "They are measured once it has been fitted." if run.job and not run.job.has_ended else "It has none."
    headers = ("Metric", "Value", "") if run.metrics_reported else ("Metric", "Value")
    return Part("Metrics", Table(headers, [row[: len(headers)] for row in rows], empty))


def params_part(run: Run) -> Part:
    """The parameters."""
    params = {name: "-" if value is None else str(value) for name, value in run.params.items()}
    return Part("Parameters", Facts(params, empty="It has none."))


def curves_parts(run: Run) -> list[Part]:
    """The history of each metric, as far as it goes now."""
    return [_curve_part(curve) for curve in curves_of([run.pk])[:MOST_CURVES]]


def _curve_part(curve: Curve) -> Part:
    points = [(float(step), value) for step, value in zip(curve.steps, curve.values, strict=True)]
    now = f"{number(curve.values[-1], 4)} at step {curve.steps[-1]}."
    return Part(curve.key, lines({curve.key: points}, title=f"{curve.key} by step", x="step"), notes=[now])


def evaluation_parts(run: Run) -> list[Part]:
    """What was measured besides the metrics, drawn."""
    found = Evaluation.model_validate(run.evaluation or {})
    drawn: Iterable[tuple[str, Plot | None, str]] = (
        ("Confusion matrix", _confusion(found), "Rows are the true classes, columns the predicted ones."),
        ("ROC", _roc(found), "How much of a class is found, for how much of the others is taken for it."),
        ("Residuals", _residuals(found), "Truth less prediction, of the rows that it was not fitted on."),
        ("Residuals by prediction", _misses(found), "A model that misses nothing in one direction has them around 0."),
        ("What matters", _importance(found), "How much worse it is when a column's values are shuffled."),
    )
    parts = [Part(title, plot, notes=[note]) for title, plot, note in drawn if plot and plot.drawing]
    return [*parts, *([_folds_part(found.folds)] if found.folds else [])]


def _confusion(found: Evaluation) -> Plot | None:
    if found.confusion is None:
        return None
    labels = [str(name) for name in found.confusion.labels]
    return matrix(labels, found.confusion.counts, title="Confusion matrix")


def _roc(found: Evaluation) -> Plot | None:
    series = {str(curve.label): list(zip(curve.false_rates, curve.true_rates, strict=False)) for curve in found.roc}
    if not series:
        return None
    return lines(series | {"by chance": [(0.0, 0.0), (1.0, 1.0)]}, title="ROC curve", x="false", y="true")


def _residuals(found: Evaluation) -> Plot | None:
    if found.residuals is None:
        return None
    return histogram(found.residuals.edges, found.residuals.counts, title="Residuals", x="residual")


def _misses(found: Evaluation) -> Plot | None:
    points = [
        (miss.predicted, miss.residual, f"{number(miss.residual, 4)} at {number(miss.predicted, 4)}")
        for miss in found.misses
    ]
    return scatter(points, title="Residuals by prediction", x="predicted", y="residual") if points else None


def _importance(found: Evaluation) -> Plot | None:
    values = [(one.column, one.mean) for one in found.importance[:SHOWN_COLUMNS]]
    return bars(values, title="Importance of columns") if values else None


def _folds_part(folds: Sequence[Mapping[str, float]]) -> Part:
    names = sorted({name for fold in folds for name in fold})
    rows = [
        (place, *(number(fold[name], 4) if name in fold else "" for name in names))
        for place, fold in enumerate(folds, start=1)
    ]
    return Part("Folds", Table(("Fold", *names), rows))


def origin_part(run: Run) -> Part | None:
    """What one needs to have the same again."""
    facts = {
        "Code": run.code_digest[:12],
        "Dataset": run.dataset_version.digest[:12] if run.dataset_version else "",
        **run.libraries,
        "Peak memory": size(run.peak_memory_bytes),
        **{f"Tag {name}": value for name, value in run.tags.items()},
    }
    shown = Facts(facts)
    return Part("Made with", shown) if run.libraries or run.tags or run.code_digest else None


def inputs_part(run: Run) -> Part | None:
    """The datasets that a client named."""
    rows = [(one.get("name"), one.get("digest"), one.get("source_type")) for one in run.inputs]
    return Part("Datasets it used", Table(("Name", "Digest", "Source"), rows)) if rows else None


def artifacts_part(run: Run) -> Part | None:
    """The files that a client logged, to be downloaded."""
    files = run.artifacts.select_related("bundle").order_by("path")[:MOST_ARTIFACTS]
    rows = [
        (
            link(page_url(Run, "artifact", run.pk, file.path), file.path),
            size(file.bundle.size_bytes),
            when(file.created_at),
        )
        for file in files
    ]
    return Part("Files", Table(("Path", "Size", "Logged"), rows)) if rows else None


def decision_part(run: Run) -> Part | None:
    """By what the version would be activated, and whether it was."""
    if not run.activate_if:
        return None
    decided, criterion = run.activation_decision or {}, run.activate_if
    facts = {
        "If": f"{criterion.get('metric')} is better by {criterion.get('margin')}",
        "Decided": str(decided.get("state", "")),
        "Because": decided.get("reason"),
    }
    return Part("Activate if", Facts(facts, empty="It is decided once the version is ready."))


def log_part(run: Run) -> Part:
    """What happened."""
    return Part("Log", Text(run.log), is_wide=True)


def _dataset_link(run: Run) -> SafeString | str:
    if run.dataset_version is None:
        return ""
    dataset = run.dataset_version.dataset
    return link(page_url(dataset, "change", dataset.pk), run.dataset_version)
