"""What needs attention of predictions: models that fail, and shadows that say something else."""

from collections.abc import Iterator

import redis
from django.http import HttpRequest

from inference import traffic
from inference.models import ShadowReport
from models_registry.models import Deployment, RegisteredModel
from tenants.scope import current_tenant
from tenants.site.attention import Concern
from tenants.site.pages import page_url
from tenants.site.parts import Tone, link
from tenants.site.sites import tenant_site

SHOWN = 8
LEAST_FAILED, LEAST_SHARE, MANY = 5, 0.01, 0.1  # of today's calls
LEAST_ROWS, LEAST_AGREEMENT = 100, 0.95  # of a shadow


@tenant_site.concern
def failing_models(request: HttpRequest) -> Iterator[Concern]:
    """Models of whose calls some fail today."""
    try:
        asked = traffic.by_model(current_tenant().schema_name, days=1)
    except redis.RedisError:  # the home has more to show
        return
    shares = {name: one.failed / one.calls for name, one in asked.items() if one.failed >= LEAST_FAILED}
    worst = sorted((name for name, share in shares.items() if share >= LEAST_SHARE), key=lambda name: -shares[name])
    for model in RegisteredModel.objects.filter(name__in=worst[:SHOWN]).only("name") if worst else ():
        one, share = asked[model.name], shares[model.name]
        why = f"{one.failed:,} of {one.calls:,} calls ({share:.1%}) got no prediction today."
        tone: Tone = "danger" if share >= MANY else "warning"
        yield Concern(link(page_url(model, "change", model.pk), model.name), "fails", why, tone=tone)


@tenant_site.concern
def disagreeing_shadows(request: HttpRequest) -> Iterator[Concern]:
    """Shadows of what serves now that say something else, or nothing."""
    now = Deployment.objects.values("activation")
    told = ("version_number", "tally__requests", "tally__rows", "tally__agreeing_rows", "tally__failed")
    reports = ShadowReport.objects.filter(activation__in=now).order_by("-updated_at")
    found = reports.values_list("activation__model", "activation__model__name", *told)[:SHOWN]
    for model, name, shadow, *counts in found:
        requests, rows, agreeing, failed = (count or 0 for count in counts)
        what = link(page_url(RegisteredModel, "change", model), name)
        if rows >= LEAST_ROWS and agreeing < LEAST_AGREEMENT * rows:
            why = f"v{shadow}, in its shadow, says something else for {1 - agreeing / rows:.1%} of {rows:,} rows."
            yield Concern(what, "differs", why, tone="warning")
        if failed >= LEAST_FAILED and failed >= LEAST_SHARE * (requests + failed):
            why = f"v{shadow}, in its shadow, could not answer {failed:,} of {requests + failed:,} requests."
            yield Concern(what, "shadow fails", why, tone="warning")
