"""The blocks of the registry's pages: versions, metrics, signatures, files, what serves."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.urls import reverse
from django.utils.safestring import SafeString

from models_registry.history import routing_of
from models_registry.models import Activation, ModelVersion, RegisteredModel, VersionState
from models_registry.routing import Routing
from tenants.site.pages import page_url
from tenants.site.parts import Facts, Part, Table, Tone, bar, code, label, link, number, numbers, size, when
from tenants.site.plots import lines

STATE_TONES: dict[str, Tone] = {
    VersionState.PENDING.value: "info",
    VersionState.INSPECTING.value: "info",
    VersionState.READY.value: "success",
    VersionState.REJECTED.value: "danger",
}
MOST_ROWS = 100
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


def activations_part(activations: Iterable[Activation]) -> Part:
    """The history of what served, the newest first."""
    rows = [
        (
            when(one.created_at),
            label(_split(routing_of(one)), "success") if one.version_number else label("nothing"),
            one.actor,
            one.reason,
        )
        for one in activations
    ]
    empty = "No version was ever active. Open a ready version and activate it."
    return Part("What served when", Table(("When", "Served", "By", "Why"), rows, empty), is_wide=True)


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
        return Part(
            "Inspection", Facts({"Progress": _progress(version)}), notes=["It is being inspected in a sandbox."]
        )
    found = version.inspection
    facts = Facts(
        {
            "Kind of model": found.get("type_name"),
            "Made with": _pairs(found.get("made_with")),
            "Loads with": _pairs(found.get("libraries")),
            "Memory": size(found.get("memory_bytes")),
            "Loads in": _seconds(found.get("load_seconds")),
            "Serves as": _compilation(version.compilation),
            "Warnings": _lines(found.get("warnings")),
            "Scanner's advice": _scan(found.get("scan")),
        },
        empty="It was found to be sound; nothing more was noted.",
    )
    return Part("Inspection", facts)


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


def files_part(version: ModelVersion) -> Part:
    """The version's files, each to be downloaded."""
    files = list(version.bundle.files.select_related("blob")[: MOST_ROWS + 1])
    rows = [
        (
            link(reverse("version-file", args=[version.model.name, version.number, file.path]), file.path),
            size(file.blob.size_bytes),
            code(file.blob.sha256[:HASH_CHARS]),
        )
        for file in files[:MOST_ROWS]
    ]
    notes = ["There are more files than are shown; download the version for all."] if len(files) > MOST_ROWS else []
    artifact = reverse("version-artifact", args=[version.model.name, version.number])
    return Part("Files", Table(("Path", "Size", "SHA-256"), rows), (artifact, "Download all"), notes)


def mapping_part(title: str, values: Mapping[str, Any], empty: str) -> Part:
    """Parameters or tags by name."""
    return Part(title, Facts(dict(list(values.items())[:MOST_ROWS]), empty=empty))


def _field_row(verb: str, field: Mapping[str, Any]) -> tuple[Any, ...]:
    sizes = ["rows", *("any" if length == -1 else str(length) for length in list(field.get("shape", []))[1:])]
    missing = "allowed" if field.get("nullable") else "not allowed"
    return verb, field.get("name", ""), code(field.get("dtype", "")), code(f"[{', '.join(sizes)}]"), missing


def _progress(version: ModelVersion) -> SafeString:
    job = version.inspection_job
    if job is None:
        return label("waiting", "info")
    return bar(job.progress_percent, job.progress_stage or job.get_state_display().lower())


def _split(routing: Routing) -> str:
    """Who answers: the version alone, or each with its percent."""
    if len(routing.split) == 1:
        return f"v{routing.split[0].version}"
    return ", ".join(f"v{share.version} {share.percent} %" for share in routing.split)


def _compilation(verdict: Mapping[str, Any]) -> str:
    """Whether the compiled form serves, how it compares and what it gains."""
    times = [verdict.get(name) for name in ("one_row_us", "original_one_row_us")]
    if verdict.get("state") != "compiled" or not all(isinstance(time, int | float) for time in times):
        return str(verdict.get("sentence", ""))
    return f"{verdict['sentence']} One row took {times[0]:,.0f} µs instead of {times[1]:,.0f}."


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
