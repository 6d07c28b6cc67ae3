"""When models were asked last, in their list, on their pages and on the page of usage."""

from datetime import datetime
from typing import Any

import redis
from django.http import HttpRequest
from django.utils.safestring import SafeString

from inference import traffic
from inference.admin.shadows import shadow_part
from models_registry.admin.models import ModelPages
from models_registry.models import RegisteredModel
from tenants.admin import usage
from tenants.scope import current_tenant
from tenants.site.pages import column, page_url
from tenants.site.parts import Facts, Part, Table, link, when
from tenants.site.sites import tenant_site

SHOWN = 20


class UsedModelPages(ModelPages):
    """The models' pages, with when each was asked last."""

    list_display = ("name", "task", "serves", "best", "versions", "size", "used")

    @column("Last used")
    def used(self, model: RegisteredModel) -> SafeString | str:
        return when(getattr(model, "used_at", None)) or "Not lately"

    def complete(self, models: list[RegisteredModel]) -> None:
        super().complete(models)
        moments = _last_used([model.name for model in models])
        for model in models:
            model.used_at = moments.get(model.name)  # type: ignore[attr-defined]

    def facts(self, model: RegisteredModel) -> dict[str, Any]:
        used_at = _last_used([model.name]).get(model.name)
        return super().facts(model) | {"Last used": when(used_at) or "Not in the last 90 days"}

    def parts(self, request: HttpRequest, obj: RegisteredModel) -> list[Part]:
        found, shadow = super().parts(request, obj), shadow_part(obj)
        return [*found[:2], *([shadow] if shadow else []), *found[2:]]


tenant_site.unregister(RegisteredModel)
tenant_site.register(RegisteredModel, UsedModelPages)


def _last_used(names: list[str]) -> dict[str, datetime]:
    try:
        return traffic.last_used(current_tenant().schema_name, names)
    except redis.RedisError:  # the page has more to show
        return {}


@tenant_site.panel(rank=20, page=usage.PAGE)
def predictions_part(request: HttpRequest) -> Part:
    """What was asked of each model in the last week."""
    title = "Predictions in the last 7 days"
    try:
        asked = traffic.by_model(current_tenant().schema_name)
    except redis.RedisError:
        return Part(title, Facts({}, empty="They are not known at the moment."))
    most = sorted(asked.items(), key=lambda pair: -pair[1].calls)[:SHOWN]
    known = dict(RegisteredModel.objects.filter(name__in=[name for name, _ in most]).values_list("name", "pk"))
    rows = [
        (
            link(page_url(RegisteredModel, "change", known[name]), name) if name in known else f"{name} (deleted)",
            f"{one.calls:,}",
            f"{one.rows:,}",
            f"{one.failed:,}",
        )
        for name, one in most
    ]
    notes = [f"The {SHOWN} of {len(asked)} models that were asked most."] if len(asked) > SHOWN else []
    empty = "Nothing was asked. Activate a version, then copy the lines of its page Try it into a program."
    return Part(title, Table(("Model", "Calls", "Rows", "Errors"), rows, empty), notes=notes)
