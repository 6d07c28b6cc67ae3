"""What the registry shows on the home of a tenant, and of a tenant to the operator."""

from django.http import HttpRequest

from models_registry.admin.parts import state_label, version_link, versions_table
from models_registry.blobs import used_bytes
from models_registry.models import Deployment, ModelVersion, RegisteredModel, VersionState
from tenants import provisioning
from tenants.models import Scope, Tenant
from tenants.scope import tenant_scope
from tenants.site.pages import page_url
from tenants.site.parts import Facts, Part, Table, link, numbers, size, when
from tenants.site.sites import operator_site, tenant_site, visitor

SHOWN = 8


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


@tenant_site.panel(rank=10)
def versions_panel(request: HttpRequest) -> Part:
    """The versions that came last."""
    newest = ModelVersion.objects.with_standing().order_by("-created_at")[:SHOWN]
    caller = visitor(request)
    upload = (page_url(ModelVersion, "add"), "Upload a version") if caller and caller.may(Scope.WRITE) else None
    table = versions_table(newest, "There are no versions yet.", is_of_one_model=False)
    return Part("Latest versions", table, upload, is_wide=True)


@tenant_site.panel(rank=20)
def attention_panel(request: HttpRequest) -> Part | None:
    """Versions that were rejected lately; nothing if none was."""
    rejected = ModelVersion.objects.filter(state=VersionState.REJECTED).select_related("model").order_by("-created_at")
    rows = [
        (version_link(one), state_label(one), one.rejection_reason, when(one.created_at)) for one in rejected[:SHOWN]
    ]
    if not rows:
        return None
    return Part("Needs attention", Table(("Version", "", "Why", "Uploaded"), rows), is_wide=True)


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
