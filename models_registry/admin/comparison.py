"""A version beside what serves now, for whoever is about to activate it."""

from collections.abc import Iterator
from typing import Any

from models_registry.models import Deployment, ModelVersion
from models_registry.standing import is_error
from tenants.site.parts import Part, Table, Tone, label, number, size

MOST_METRICS = 40


def serving_version(version: ModelVersion) -> ModelVersion | None:
    """What serves for the version's model now."""
    deployments = Deployment.objects.select_related("activation__version__bundle", "activation__version__model")
    deployment = deployments.filter(model=version.model_id).first()
    return deployment.version if deployment else None


def in_sentences(version: ModelVersion, serving: ModelVersion | None) -> list[str]:
    """What activating the version would change."""
    if serving is None:
        return [f"Nothing serves for {version.model.name} now. Its predictions come from this version from then on."]
    if serving.pk == version.pk:
        return [f"v{version.number} serves already. It alone answers from then on."]
    return [
        f"v{serving.number} serves now. Predictions come from v{version.number} from then on, once it is in memory.",
        f"A rollback brings v{serving.number} back.",
    ]


def comparison_part(version: ModelVersion, serving: ModelVersion | None) -> Part | None:
    """The metrics and the costs of both, side by side; None where nothing else serves."""
    if serving is None or serving.pk == version.pk:
        return None
    rows = [*_metric_rows(version, serving), *_other_rows(version, serving)]
    headers = ("", f"v{serving.number} now", f"v{version.number} then", "Change")
    return Part("Compared with what serves", Table(headers, rows))


def _metric_rows(version: ModelVersion, serving: ModelVersion) -> Iterator[tuple[Any, ...]]:
    ours, theirs = version.metrics, serving.metrics
    for name in sorted(ours.keys() | theirs.keys())[:MOST_METRICS]:
        before, after = theirs.get(name), ours.get(name)
        shown = [number(one) if one is not None else "not given" for one in (before, after)]
        yield name, *shown, _change(name, before, after)


def _change(name: str, before: Any, after: Any) -> Any:
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in (before, after)):
        return ""
    if before == after:
        return "the same"
    tone: Tone = "success" if (after < before) == is_error(name) else "danger"
    return label(f"{after - before:+.4g}", tone)


def _other_rows(version: ModelVersion, serving: ModelVersion) -> Iterator[tuple[Any, ...]]:
    pairs = {
        "Format": [one.format for one in (serving, version)],
        "Size": [size(one.bundle.size_bytes) for one in (serving, version)],
        "Memory": [size(one.inspection.get("memory_bytes")) for one in (serving, version)],
        "One row": [_one_row(one) for one in (serving, version)],
    }
    for name, (before, after) in pairs.items():
        if before or after:
            yield name, before or "not known", after or "not known", ""


def _one_row(version: ModelVersion) -> str:
    took = version.compilation.get("one_row_us")
    return f"{took:,.0f} µs, compiled" if isinstance(took, int | float) else ""
