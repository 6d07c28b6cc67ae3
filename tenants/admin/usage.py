"""What a tenant uses and may use, on a page of its admin; the apps above add their parts."""

from django.http import HttpRequest, HttpResponse

from tenants.models import Job, Membership, Scope
from tenants.scope import current_tenant
from tenants.site.parts import Facts, Part, size
from tenants.site.sites import Nav, tenant_site

PAGE = "usage"


@tenant_site.page(PAGE, Nav("Tenant", "data_usage", 70, "Usage and quotas"), Scope.READ)
def usage(request: HttpRequest) -> HttpResponse:
    """What is used, and how much may be."""
    return tenant_site.shown(request, "admin/detail.html", "Usage and quotas", parts=tenant_site.panels(request, PAGE))


@tenant_site.panel(rank=50, page=PAGE)
def limits_part(request: HttpRequest) -> Part:
    """What the operator allows."""
    tenant = current_tenant()
    facts = {
        "Storage": size(tenant.max_storage_bytes),
        "One upload": size(tenant.max_artifact_bytes),
        "One dataset": size(tenant.max_dataset_bytes),
        "Open runs": f"{tenant.max_open_runs:,}",
        "Runs at once": f"{tenant.max_running_runs:,}",
        "Time of a run": f"{tenant.max_run_seconds:,} s, of processors {tenant.max_run_cpu_seconds:,} s",
        "Memory of a run": size(tenant.max_run_memory_bytes),
    }
    return Part("Quotas", Facts(facts), notes=["The operator sets them; ask there for more."])


@tenant_site.panel(rank=40, page=PAGE)
def people_part(request: HttpRequest) -> Part:
    """Who and what there is."""
    tenant = current_tenant()
    facts = {
        "Members": Membership.objects.filter(tenant=tenant).count(),
        "Open jobs": Job.objects.open().filter(tenant=tenant).count(),
    }
    return Part("People and work", Facts(facts))
