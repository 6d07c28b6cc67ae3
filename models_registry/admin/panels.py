"""What the registry shows on the home of a tenant, and of a tenant to the operator."""

from collections.abc import Iterator
from datetime import timedelta

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from models_registry.admin.parts import version_link, versions_table
from models_registry.blobs import used_bytes
from models_registry.models import Deployment, ModelVersion, RegisteredModel, VersionState
from tenants import provisioning
from tenants.models import Scope, Tenant
from tenants.scope import current_tenant, tenant_scope
from tenants.site.attention import Concern
from tenants.site.pages import page_url
from tenants.site.parts import Facts, Part, Step, Steps, Table, Tone, bar, link, numbers, size, when
from tenants.site.sites import operator_site, tenant_site, visitor

SHOWN = 8
LATELY = timedelta(days=7)
NEAR_ITS_END = 0.8  # of a quota


def kept_bytes(request: HttpRequest) -> int:
    """How much the tenant keeps; found once a request."""
    if not hasattr(request, "kept_bytes"):
        request.kept_bytes = used_bytes()  # type: ignore[attr-defined]
    found: int = request.kept_bytes  # type: ignore[attr-defined]
    return found


def _may(request: HttpRequest, scope: str) -> bool:
    caller = visitor(request)
    return caller is not None and caller.may(scope)


@tenant_site.panel(rank=-10)
def first_steps_panel(request: HttpRequest) -> Part | None:
    """What to do until something serves; nothing after that."""
    if Deployment.objects.exclude(activation__version=None).exists():
        return None
    version = ModelVersion.objects.select_related("model").order_by("-created_at").first()
    ready = version if version is None or version.is_ready else _newest_ready()
    uploaded = Step(
        "Upload a version",
        "done" if version else "now",
        "A file that a library has saved: scikit-learn, torch, ONNX, XGBoost, LightGBM, or an MLflow folder.",
        (page_url(ModelVersion, "add"), "Upload") if not version and _may(request, Scope.WRITE) else None,
    )
    activated = Step(
        "Activate it",
        "now" if version else "later",
        "Once its inspection has found it sound, an admin says that it serves.",
        (page_url(ready, "change", ready.pk), f"Look at {ready}") if ready else None,
    )
    asked = Step(
        "Ask it",
        "later",
        "With a token, from any program; its page has the lines to copy.",
        (reverse("docs"), "The API"),
    )
    return Part("Begin here", Steps((uploaded, activated, asked)), is_wide=True)


def _newest_ready() -> ModelVersion | None:
    return ModelVersion.objects.ready().select_related("model").order_by("-created_at").first()


@tenant_site.panel(rank=0)
def serving_panel(request: HttpRequest) -> Part:
    """What serves now."""
    deployments = (
        Deployment.objects.exclude(activation__version=None)
        .select_related("model", "activation__version__model")
        .order_by("-activation__created_at")
    )
    rows = [
        (
            link(page_url(one.model, "change", one.model_id), one.model.name),
            version_link(one.activation.version, f"v{one.activation.version.number}") if one.activation.version else "",
            numbers(one.activation.version.metrics) if one.activation.version else "",
            when(one.activation.created_at),
            one.activation.actor,
        )
        for one in deployments[:SHOWN]
    ]
    empty = "Nothing serves yet. Upload a version, wait for its inspection, and activate it."
    table = Table(("Model", "Serves", "Metrics", "Since", "By"), rows, empty)
    return Part("What serves", table, (page_url(RegisteredModel, "changelist"), "All models"), is_wide=True)


@tenant_site.panel(rank=8)
def storage_panel(request: HttpRequest) -> Part:
    """How much of the tenant's room is taken."""
    kept, room = kept_bytes(request), current_tenant().max_storage_bytes
    percent = 100 * kept / room if room else 100.0
    facts = Facts({"Storage": bar(percent, f"{size(kept)} of {size(room)}")})
    return Part("Room", facts, (reverse("admin:usage"), "Usage and quotas"))


@tenant_site.panel(rank=20)
def versions_panel(request: HttpRequest) -> Part:
    """The versions that came last."""
    newest = ModelVersion.objects.with_standing().light().order_by("-created_at")[:SHOWN]
    upload = (page_url(ModelVersion, "add"), "Upload a version") if _may(request, Scope.WRITE) else None
    table = versions_table(newest, "There are no versions yet.", is_of_one_model=False)
    return Part("Latest versions", table, upload, is_wide=True)


@tenant_site.concern
def rejected_uploads(request: HttpRequest) -> Iterator[Concern]:
    """Versions that were rejected lately."""
    rejected = ModelVersion.objects.filter(state=VersionState.REJECTED, created_at__gt=timezone.now() - LATELY)
    for version in rejected.select_related("model").light().order_by("-created_at")[:SHOWN]:
        why = version.rejection_reason or "It was rejected."
        yield Concern(version_link(version), "rejected", why, version.created_at)


@tenant_site.concern
def storage_near_its_end(request: HttpRequest) -> Iterator[Concern]:
    """That little room is left."""
    kept, room = kept_bytes(request), current_tenant().max_storage_bytes
    if kept < NEAR_ITS_END * room:
        return
    why = f"{size(kept)} of {size(room)} are taken. Delete versions that are no longer needed, or ask for more."
    tone: Tone = "danger" if kept >= room else "warning"
    yield Concern(link(reverse("admin:usage"), "Storage"), "full" if kept >= room else "nearly full", why, tone=tone)


@operator_site.tenant_part
def usage_part(request: HttpRequest, tenant: Tenant) -> Part:
    """How much a tenant keeps."""
    if not provisioning.has_schema(tenant):
        return Part("Registry", Facts({}, empty="Its schema is gone."))
    with tenant_scope(tenant):
        facts = {
            "Models": RegisteredModel.objects.count(),
            "Versions": ModelVersion.objects.count(),
            "Kept": f"{size(used_bytes())} of {size(tenant.max_storage_bytes)}",
        }
    return Part("Registry", Facts(facts))
