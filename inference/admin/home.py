"""What predictions show on a tenant's home: the traffic, and which of its versions are in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from django.conf import settings
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from inference import traffic
from inference.pool import model_pool
from inference.traffic import SPANS, Slot, Span
from models_registry.admin.parts import version_link
from models_registry.history import routing_of
from models_registry.loading import pool_key
from models_registry.models import Deployment, ModelVersion
from runtimes.errors import RuntimeFault
from tenants.models import Tenant
from tenants.scope import current_tenant
from tenants.site.parts import Facts, Figures, Part, Several, Table, label, size, when_at
from tenants.site.sites import tenant_site
from tenants.site.time_plots import FAULTS, columns, lines

MOST_WARM = 10
STATS_WITHIN_S = 2.0
SPAN = "span"


@tenant_site.panel(rank=5)
def traffic_panel(request: HttpRequest) -> Part:
    """Predictions, errors and latency of the last hour, day or week."""
    span = SPANS.get(request.GET.get(SPAN, ""), SPANS["hour"])
    tabs = [(f"?{SPAN}={name}", f"Last {name}", name == span.name) for name in SPANS]
    try:
        slots = traffic.slots(current_tenant().schema_name, span)
    except redis.RedisError:
        return Part("Traffic", Facts({}, empty="It is not known at the moment."), tabs=tabs, is_wide=True)
    return Part("Traffic", Several(_traffic(slots, span)), tabs=tabs, is_wide=True)


def _traffic(slots: Sequence[Slot], span: Span) -> list[Any]:
    asked = traffic.total(slots)
    failed = f"{100 * asked.failed / asked.calls:.2g} %" if asked.calls else ""
    figures = Figures(
        [
            ("Predictions", f"{asked.calls:,}", f"{asked.rows:,} rows" if asked.calls else ""),
            ("Errors", f"{asked.failed:,}", failed),
            ("Half within", _milliseconds(asked.within_s(0.5)), ""),
            ("95 % within", _milliseconds(asked.within_s(0.95)), ""),
        ]
    )
    moments = [slot.begin for slot in slots]
    stacks = {
        "answered": (0, [slot.asked.calls - slot.asked.failed for slot in slots]),
        "errors": (FAULTS, [slot.asked.failed for slot in slots]),
    }
    latency = {"half": _shares(slots, 0.5), "95 %": _shares(slots, 0.95)}
    each = "minute" if span.slot_s == traffic.MINUTE else "hour"
    empty = f"Nothing was asked in the last {span.name}. Open a version and try it, or copy its lines into a program."
    calls = columns(moments, stacks, title=f"Predictions in the last {span.name}", unit=f"a {each}", empty=empty)
    times = lines(moments, latency, title=f"Latency in the last {span.name}", unit="milliseconds")
    return [figures, calls, times] if times.drawing else [figures, calls]


def _shares(slots: Sequence[Slot], share: float) -> list[float | None]:
    found = (slot.asked.within_s(share) for slot in slots)
    return [None if seconds is None else seconds * 1e3 for seconds in found]


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "not known"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


@dataclass(frozen=True)
class Warm:
    """A version's runners on this machine. since: seconds since the epoch."""

    runners: int
    size_bytes: int
    in_flight: int
    since: float
    is_pinned: bool


def warm_versions(runners: Sequence[Mapping[str, Any]], tenant: Tenant) -> dict[str, Warm]:
    """What the model host holds of this tenant, by pool key; nothing of another tenant's."""
    found: dict[str, Warm] = {}
    for runner in runners:
        key = str(runner["key"])
        if not key.startswith(f"{tenant.uuid.hex}/") or runner["retired"]:
            continue
        known = found.get(key, Warm(0, 0, 0, float(runner["loaded_at"]), False))
        found[key] = Warm(
            known.runners + 1,
            known.size_bytes + int(runner["private_bytes"]),
            known.in_flight + int(runner["in_flight"]),
            min(known.since, float(runner["loaded_at"])),
            known.is_pinned or bool(runner["pinned"]),
        )
    return found


@tenant_site.panel(rank=6)
def pool_panel(request: HttpRequest) -> Part:
    """Which of the tenant's versions are in this machine's memory."""
    title = "In memory"
    if not settings.MODELS_SOCKET:
        return Part(title, Facts({}, empty="The machine that answers this page serves no models; others do."))
    try:
        stats = model_pool().client.stats(STATS_WITHIN_S)
    except RuntimeFault:
        return Part(title, Facts({}, empty="The model host does not answer at the moment."))
    tenant = current_tenant()
    warm = warm_versions(stats.runners, tenant)
    routed, pinned = _routed(tenant)
    cold = len(routed - warm.keys())
    figures = Figures(
        [
            ("Warm", len(warm), "loaded now"),
            ("Cold", cold, "loaded when asked"),
            ("Pinned", len(pinned), f"{len(pinned - warm.keys())} not loaded" if pinned - warm.keys() else ""),
            ("Memory", size(sum(one.size_bytes for one in warm.values())), ""),
        ]
    )
    return Part(title, Several([figures, _warm_table(warm, routed)]))


def _routed(tenant: Tenant) -> tuple[set[str], set[str]]:
    """The pool keys of all versions that requests reach, and of those that are pinned."""
    deployments = Deployment.objects.exclude(activation__version=None).select_related("activation")
    deployments = deployments.only("activation__version_number", "activation__routing")
    reached = {one.model_id: routing_of(one.activation) for one in deployments}
    versions = ModelVersion.objects.filter(model__in=reached).only("id", "model_id", "number")
    numbers = {number for routing in reached.values() for number in routing.versions}
    routed, pinned = set(), set()
    for version in versions.filter(number__in=numbers):
        routing = reached[version.model_id]
        if version.number in routing.versions:
            routed.add(pool_key(tenant, version))
            if routing.is_pinned:
                pinned.add(pool_key(tenant, version))
    return routed, pinned


def _warm_table(warm: Mapping[str, Warm], routed: set[str]) -> Table:
    largest = sorted(warm.items(), key=lambda pair: -pair[1].size_bytes)[:MOST_WARM]
    ids = [key.partition("/")[2] for key, _ in largest]
    named = {one.id.hex: one for one in ModelVersion.objects.filter(pk__in=ids).select_related("model").light()}
    rows = [
        (
            _named(version, one, key in routed),
            size(one.size_bytes),
            f"{one.runners}, {one.in_flight} calls open" if one.in_flight else one.runners,
            when_at(one.since),
        )
        for key, one in largest
        if (version := named.get(key.partition("/")[2]))
    ]
    empty = "None of your versions is in memory. The first request for one loads it; pinned ones stay."
    return Table(("Version", "Memory", "Runners", "Loaded"), rows, empty)


def _named(version: ModelVersion, warm: Warm, is_routed: bool) -> SafeString:
    """The version, and what is special about it."""
    if warm.is_pinned:
        return format_html("{} {}", version_link(version), label("pinned", "info"))
    return version_link(version) if is_routed else format_html("{} {}", version_link(version), label("not routed to"))
