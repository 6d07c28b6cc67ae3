"""This machine's model host: which tenants' models are in memory, and how much room they take."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, cast

from django.conf import settings
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse

from inference.pool import ModelPool
from runtimes.client import HostStats
from runtimes.errors import RuntimeFault
from tenants.models import Scope, Tenant
from tenants.site.pages import page_url
from tenants.site.parts import Facts, Part, Table, bar, label, link, size, when_at
from tenants.site.sites import Nav, operator_site

LOOK_AGAIN_S = 5
SHOWN_RUNNERS, SHOWN_TENANTS = 200, 100
ID_CHARS = 8
NONE_HERE = "There is no model host on this machine: its predictions take the queue."


@operator_site.page("model-hosts", Nav("Platform", "memory", 23, "Model hosts"), Scope.ADMIN)
def model_hosts(request: HttpRequest) -> HttpResponse:
    """The pool of the machine that answers."""
    return operator_site.shown(request, "admin/detail.html", "Model hosts", parts=_parts(), refresh_s=LOOK_AGAIN_S)


def _parts() -> list[Part]:
    if not settings.MODELS_SOCKET:
        return [Part("This machine", Facts({}, empty=NONE_HERE), is_wide=True)]
    try:
        stats = cast(ModelPool, caches["models"]).stats()
    except (RuntimeFault, OSError) as error:
        return [Part("This machine", Facts({}, empty=f"Its model host does not answer: {error}."), is_wide=True)]
    named = _tenants(runner["tenant"] for runner in stats.runners)
    return [_pool_part(stats), _counters_part(stats), _tenants_part(stats, named), _runners_part(stats, named)]


def _tenants(ids: Iterable[str]) -> dict[str, Tenant]:
    """The tenants by what the host calls them, the hexadecimal digits of their uuids."""
    wanted = {one for one in ids if len(one) == len("0" * 32)}
    return {one.uuid.hex: one for one in Tenant.objects.filter(pk__in=wanted)}


def _pool_part(stats: HostStats) -> Part:
    share = 100 * stats.bytes / max(stats.memory_bytes, 1)
    facts = {
        "In use": bar(share, f"{size(stats.bytes)} of {size(stats.memory_bytes)}"),
        "Runners": len(stats.runners),
        "Versions": len({runner["key"] for runner in stats.runners}),
        "Pinned": len({runner["key"] for runner in stats.runners if runner["pinned"]}),
        "Ready": "what is pinned is in memory" if stats.is_ready else "what is pinned is still being loaded",
        "Warm library sets": ", ".join(sorted(stats.zygotes)),
    }
    return Part("This machine", Facts(facts))


def _counters_part(stats: HostStats) -> Part:
    loads = max(stats.loads, 1)
    facts = {
        "Loads": f"{stats.loads:,}, {1000 * stats.load_seconds / loads:.0f} ms each",
        "Of them further runners": stats.copies,
        "Failed loads": stats.failed_loads,
        "Evictions": f"{stats.evictions:,}, {size(stats.evicted_bytes)}",
        "Retired": stats.retired,
        "Died by themselves": stats.deaths,
        "Killed": stats.kills,
    }
    return Part("Since it started", Facts(facts))


def _tenants_part(stats: HostStats, named: Mapping[str, Tenant]) -> Part:
    held: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for runner in stats.runners:
        held[runner["tenant"]].append(runner)
    ranked = sorted(held.items(), key=lambda item: -sum(one["private_bytes"] for one in item[1]))
    rows = [
        (
            _tenant_link(tenant, named),
            len({one["key"] for one in runners}),
            len(runners),
            size(sum(one["private_bytes"] for one in runners)),
            sum(one["in_flight"] for one in runners),
            f"{sum(one['calls'] for one in runners):,}",
            f"{sum(one['cpu_seconds'] for one in runners):,.0f} s",
        )
        for tenant, runners in ranked[:SHOWN_TENANTS]
    ]
    headers = ("Tenant", "Versions", "Runners", "Memory", "In flight", "Calls", "CPU")
    return Part("By tenant", Table(headers, rows, "No model is in memory."), is_wide=True)


def _runners_part(stats: HostStats, named: Mapping[str, Tenant]) -> Part:
    largest = sorted(stats.runners, key=lambda one: -one["private_bytes"])[:SHOWN_RUNNERS]
    rows = [
        (
            _tenant_link(runner["tenant"], named),
            runner["key"].partition("/")[2][:ID_CHARS],
            _standing(runner),
            size(runner["private_bytes"]),
            runner["in_flight"],
            f"{runner['calls']:,}",
            when_at(runner["loaded_at"]),
            runner["pid"],
        )
        for runner in largest
    ]
    notes = [f"The largest {SHOWN_RUNNERS} of {len(stats.runners)}."] if len(stats.runners) > SHOWN_RUNNERS else []
    headers = ("Tenant", "Version", "", "Memory", "In flight", "Calls", "Loaded", "Process")
    return Part("Runners", Table(headers, rows, "No model is in memory."), notes=notes, is_wide=True)


def _standing(runner: Mapping[str, Any]) -> Any:
    if runner["retired"]:
        return label("Leaves", "warning")
    return label("Pinned", "info") if runner["pinned"] else ""


def _tenant_link(tenant: str, named: Mapping[str, Tenant]) -> Any:
    found = named.get(tenant)
    return link(page_url(found, "change", found.pk), found.tenant_id) if found else tenant[:ID_CHARS]
