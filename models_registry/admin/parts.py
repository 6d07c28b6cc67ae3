"""The blocks of the registry's pages: versions, metrics, signatures, files, what serves."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from models_registry.execution import STAGES
from models_registry.history import routing_of
from models_registry.models import Activation, ModelVersion, RegisteredModel, VersionState
from models_registry.routing import Routing
from tenants.site.pages import page_url
from tenants.site.parts import (
    Event,
    Facts,
    Part,
    Step,
    Steps,
    Table,
    Timeline,
    Tone,
    code,
    label,
    link,
    number,
    numbers,
    size,
    when,
)
from tenants.site.plots import lines

STATE_TONES: dict[str, Tone] = {
    VersionState.PENDING.value: "info",
    VersionState.INSPECTING.value: "info",
    VersionState.READY.value: "success",
    VersionState.REJECTED.value: "danger",
}
MOST_ROWS = 100
FILES_SHOWN = 8
MOST_LINES = 4
HASH_CHARS = 12


def state_label(version: ModelVersion) -> SafeString:
    """The version's state as a label."""
    return label(version.get_state_display(), STATE_TONES[version.state])


def version_link(version: ModelVersion, text: str = "") -> SafeString:
    """A link to the version's page."""
    return link(page_url(version, "change", version.pk), text or str(version))


def serving_part(model: RegisteredModel, newest: Activation | None) -> Part:
    """What serves for a model now, since when and why."""
    if newest is None or newest.version is None:
        empty = "Nothing serves: predictions are refused until a version is activated."
        return Part("What serves", Facts({}, empty=empty))
    routing = routing_of(newest)
    facts = {
        "Version": version_link(newest.version, f"v{newest.version.number}"),
        "Split": _split(routing) if len(routing.split) > 1 else "",
        "Shadow": f"v{routing.shadow.version}, asked {routing.shadow.percent} % of the requests"
        if routing.shadow
        else "",
        "Lane": routing.lane,
        "Memory": "Pinned" if routing.is_pinned else "",
        "Limits": _pairs(routing.limits),
        "Since": when(newest.created_at),
        "By": newest.actor,
        "Reason": newest.reason,
        "Metrics": numbers(newest.version.metrics),
    }
    return Part("What serves", Facts(facts))


def activations_part(activations: Iterable[Activation], of_all: tuple[str, str] | None = None) -> Part:
    """The history of what served, the newest first."""
    events = [
        Event(one.created_at, _served(one), one.actor, one.reason, "success" if one.version_number else "")
        for one in activations
    ]
    empty = "No version was ever active. Open a ready version and activate it."
    return Part("What served when", Timeline(events, empty), of_all)


def _served(activation: Activation) -> SafeString:
    routing = routing_of(activation)
    if not routing.split:
        return label("nothing served")
    split = _split(routing)
    served = version_link(activation.version, split) if activation.version else format_html("{}", split)
    more = [f"v{routing.shadow.version} in its shadow"] if routing.shadow else []
    more += ["pinned"] if routing.is_pinned else []
    more += [f"{routing.lane} lane"] if routing.lane else []
    return format_html("{}{}", served, f", {', '.join(more)}" if more else "")


def metrics_over_versions_part(versions: Iterable[ModelVersion]) -> Part:
    """The metrics that most versions have, a line each, over the versions' numbers."""
    values: dict[str, list[tuple[float, float]]] = {}
    for version in versions:
        for name, value in version.metrics.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                values.setdefault(name, []).append((version.number, value))
    common = sorted(values, key=lambda name: (-len(values[name]), name))[:MOST_LINES]
    drawn = {name: values[name] for name in common if len(values[name]) > 1}
    empty = "Once two versions have a metric in common, it is drawn here."
    return Part("Metrics over versions", lines(drawn, title="Metrics over versions", x="version", empty=empty))


def versions_table(versions: Iterable[ModelVersion], empty: str, *, is_of_one_model: bool) -> Table:
    """Versions, a line each; they come with their standing."""
    rows = [
        (
            version_link(version, f"v{version.number}" if is_of_one_model else ""),
            state_label(version),
            label("serves", "success") if getattr(version, "is_active", False) else "",
            version.format,
            numbers(version.metrics),
            size(version.bundle.size_bytes),
            when(version.created_at),
        )
        for version in versions
    ]
    return Table(("Version", "State", "", "Format", "Metrics", "Size", "Uploaded"), rows, empty)


def inspection_part(version: ModelVersion) -> Part:
    """What inspection found, is doing, or holds against the version."""
    if version.state == VersionState.REJECTED:
        reason = f"{version.rejection_reason or 'It was rejected.'}"
        facts = Facts({"Why": reason, "Code": version.rejection_code})
        return Part("Inspection", facts, notes=["This version was rejected, so it can never serve."])
    if not version.is_ready:
        return Part("Inspection", _stages(version), notes=["It is being inspected in a sandbox; this page follows it."])
    found = version.inspection
    facts = Facts(
        {
            "Kind of model": found.get("type_name"),
            "Made with": _pairs(found.get("made_with")),
            "Loads with": _pairs(found.get("libraries")),
            "Memory": size(found.get("memory_bytes")),
            "Loads in": _seconds(found.get("load_seconds")),
            "Warnings": _lines(found.get("warnings")),
            "Scanner's advice": _scan(found.get("scan")),
        },
        empty="It was found to be sound; nothing more was noted.",
    )
    return Part("Inspection", facts)


def compilation_part(version: ModelVersion) -> Part | None:
    """Whether a compiled form serves in its place, how equal it is and what it gains; None before inspection."""
    verdict = version.compilation
    if not verdict:
        return None
    facts: dict[str, Any] = {"Verdict": verdict.get("sentence", "")}
    if verdict.get("state") == "compiled":
        facts |= {
            "Compared on": f"{verdict['rows']:,} sample rows" if verdict.get("rows") else "",
            "Largest difference": _difference(verdict.get("max_difference")),
            "One row": _gain(verdict.get("one_row_us"), verdict.get("original_one_row_us")),
            "Precision": verdict.get("precision"),
            "Size": size(verdict.get("size_bytes")),
        }
    return Part("Compiled form", Facts(facts))


def _difference(value: Any) -> str:
    if not isinstance(value, int | float):
        return ""
    return "none: equal in every number" if value == 0 else f"{value:.2g}"


def _gain(compiled_us: Any, original_us: Any) -> str:
    if not all(isinstance(one, int | float) for one in (compiled_us, original_us)):
        return ""
    return f"{compiled_us:,.0f} µs instead of {original_us:,.0f}"


def metrics_part(version: ModelVersion) -> Part:
    """Each metric as measured here and as its uploader reported it."""
    rows = [
        (name, number(version.metrics_measured.get(name, "")), number(version.metrics_reported.get(name, "")))
        for name in sorted(version.metrics)
    ]
    notes = [f"Measured on {version.measured_on['dataset']}."] if version.measured_on.get("dataset") else []
    return Part("Metrics", Table(("Metric", "Measured here", "Reported"), rows, "No metrics were given."), notes=notes)


def signature_part(version: ModelVersion) -> Part:
    """What the model takes and gives."""
    signature = version.signature or {}
    inputs, outputs = list(signature.get("inputs") or []), list(signature.get("outputs") or [])
    rows = [_field_row("takes", field) for field in inputs[:MOST_ROWS]]
    rows += [_field_row("gives", field) for field in outputs[:MOST_ROWS]]
    notes = []
    if hidden := len(inputs) + len(outputs) - len(rows):
        notes.append(f"{hidden} more fields are not shown.")
    if classes := signature.get("classes"):
        shown = ", ".join(str(name) for name in classes[:MOST_ROWS])
        notes.append(f"Classes: {shown}{' and more' if len(classes) > MOST_ROWS else ''}.")
    empty = "It is known once the version has been inspected."
    return Part("Signature", Table(("", "Name", "Type", "Shape", "Missing"), rows, empty), notes=notes)


def files_part(version: ModelVersion, browser: str) -> Part:
    """The version's files, each to be downloaded. browser: the address where they are looked into."""
    files = list(version.bundle.files.select_related("blob")[: FILES_SHOWN + 1])
    rows = [
        (
            link(f"{browser}?{urlencode({'path': file.path})}", file.path),
            size(file.blob.size_bytes),
            code(file.blob.sha256[:HASH_CHARS]),
            link(reverse("version-file", args=[version.model.name, version.number, file.path]), "Download"),
        )
        for file in files[:FILES_SHOWN]
    ]
    more = ["There are more files than are shown here."] if len(files) > FILES_SHOWN else []
    return Part("Files", Table(("Path", "Size", "SHA-256", ""), rows), (browser, "Browse"), more)


def mapping_part(title: str, values: Mapping[str, Any], empty: str) -> Part:
    """Parameters or tags by name."""
    return Part(title, Facts(dict(list(values.items())[:MOST_ROWS]), empty=empty))


def _field_row(verb: str, field: Mapping[str, Any]) -> tuple[Any, ...]:
    sizes = ["rows", *("any" if length == -1 else str(length) for length in list(field.get("shape", []))[1:])]
    missing = "allowed" if field.get("nullable") else "not allowed"
    return verb, field.get("name", ""), code(field.get("dtype", "")), code(f"[{', '.join(sizes)}]"), missing


def _stages(version: ModelVersion) -> Steps:
    """The stages of an inspection: those it has passed, the one it is in, those to come."""
    job, names = version.inspection_job, list(STAGES)
    now = -1
    if job is not None and job.progress_stage:
        passed = [place for place, percent in enumerate(STAGES.values()) if percent <= job.progress_percent]
        now = names.index(job.progress_stage) if job.progress_stage in names else max(passed, default=0)
    waiting = Step("Waiting for a worker", "done" if now >= 0 else "now", "" if now >= 0 else "It begins by itself.")
    return Steps([waiting, *(_stage(name, place, now) for place, name in enumerate(names))])


def _stage(name: str, place: int, now: int) -> Step:
    return Step(name.capitalize(), "done" if place < now else "now" if place == now else "later")


def _split(routing: Routing) -> str:
    """Who answers: the version alone, or each with its percent."""
    if len(routing.split) == 1:
        return f"v{routing.split[0].version}"
    return ", ".join(f"v{share.version} {share.percent} %" for share in routing.split)


def _pairs(values: Any) -> str:
    if isinstance(values, Mapping):
        return ", ".join(f"{name} {value}" for name, value in values.items())
    return str(values or "")


def _lines(values: Any) -> str:
    return " ".join(str(value) for value in values or [])


def _scan(report: Any) -> str:
    if not isinstance(report, Mapping):
        return ""
    return f"{report.get('scanner')}: {_lines(report.get('findings')) or 'nothing to note.'}"


def _seconds(value: Any) -> str:
    return f"{value:.2f} s" if isinstance(value, int | float) else ""
