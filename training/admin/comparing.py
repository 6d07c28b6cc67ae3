"""Runs side by side, as a page."""

import uuid
from collections.abc import Sequence
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from tenants.site.parts import Part, Table, label, link, number, when
from tenants.site.plots import lines, matrix
from tenants.site.work import state_label
from training.admin.run_parts import run_url, short_name, validation_words
from training.comparison import Compared, Comparison, compare
from training.models import Run
from training.run_requests import LOWER_IS_BETTER

MOST_CURVES = 12
VALUE_CHARS = 200


def comparison_parts(runs: Sequence[Run]) -> list[Part]:
    """Everything that the runs have, side by side; where they differ, it is marked."""
    found = compare(runs)
    names = [short_name(run) for run in runs]
    return [
        Part("Runs", Table(("", *names), _about(runs)), is_wide=True),
        Part("Parameters", Table(("", *names), _rows(found.params), "They have none."), is_wide=True),
        Part("Metrics", Table(("", *names), _metric_rows(found.metrics), "They have none yet."), is_wide=True),
        *_curve_parts(found, dict(zip((run.pk for run in runs), names, strict=True))),
        *_confusion_parts(found, dict(zip((run.pk for run in runs), names, strict=True))),
    ]


def _about(runs: Sequence[Run]) -> list[Sequence[Any]]:
    told = (
        Compared("Trainer", [run.trainer for run in runs]),
        Compared("Dataset", [str(run.dataset_version or "") for run in runs]),
        Compared("Target", [run.target for run in runs]),
        Compared("Judged", [validation_words(run.validation) for run in runs]),
        Compared("Model", [run.model_name for run in runs]),
        Compared("Version", [str(run.version or "") for run in runs]),
        Compared("By", [run.created_by for run in runs]),
    )
    first = [
        ("Run", *(link(run_url(run), short_name(run)) for run in runs)),
        ("State", *(state_label(run.state) for run in runs)),
        ("Created", *(when(run.created_at) for run in runs)),
        ("Took", *(f"{run.duration_s:.1f} s" if run.duration_s is not None else "" for run in runs)),
    ]
    return [*first, *_rows([one for one in told if any(one.values)])]


def _rows(compared: Sequence[Compared]) -> list[Sequence[Any]]:
    """A row each; the differing ones first."""
    ordered = sorted(compared, key=lambda one: one.is_same)
    return [(_named(one), *map(_shown, one.values)) for one in ordered]


def _metric_rows(metrics: Sequence[Compared]) -> list[Sequence[Any]]:
    return [(_named(one), *_with_best(one)) for one in metrics]


def _with_best(metric: Compared) -> list[SafeString | str]:
    values = [value for value in metric.values if value is not None]
    best = (min if metric.name in LOWER_IS_BETTER else max)(values, default=None)
    is_known = len(values) > 1 and not metric.is_same
    return [
        "-"
        if value is None
        else format_html("{} {}", number(value), label("best", "success"))
        if is_known and value == best
        else number(value)
        for value in metric.values
    ]


def _shown(value: Any) -> str:
    """A value in a cell: what clients log may be a whole number beyond any float, or a page of text."""
    try:
        return "-" if value is None else Truncator(number(value)).chars(VALUE_CHARS)
    except OverflowError:
        return f"{str(value)[:VALUE_CHARS]}…"


def _named(compared: Compared) -> SafeString | str:
    if compared.is_same:
        return compared.name
    return format_html('<strong class="tny-differs" title="It differs">{}</strong>', compared.name)


def _curve_parts(found: Comparison, names: dict[uuid.UUID, str]) -> list[Part]:
    keys = list(dict.fromkeys(curve.key for curve in found.curves))[:MOST_CURVES]
    parts = []
    for key in keys:
        series = {
            names[curve.run]: [(float(step), value) for step, value in zip(curve.steps, curve.values, strict=True)]
            for curve in found.curves
            if curve.key == key
        }
        parts.append(Part(key, lines(series, title=f"{key} by step", x="step")))
    return parts


def _confusion_parts(found: Comparison, names: dict[uuid.UUID, str]) -> list[Part]:
    return [
        Part(
            f"Confusion matrix of {names[one['run']]}",
            matrix([str(name) for name in one["labels"]], one["counts"], title="Confusion matrix"),
            notes=["Rows are the true classes, columns the predicted ones."],
        )
        for one in found.confusions
    ]
