"""What of a tenant's room is taken, and by which models, on its page of usage."""

from django.db.models import Count, Sum
from django.http import HttpRequest

from models_registry.admin.panels import kept_bytes
from models_registry.models import ModelVersion, RegisteredModel
from tenants.admin import usage
from tenants.scope import current_tenant
from tenants.site.pages import page_url
from tenants.site.parts import Facts, Part, Several, Table, bar, link, size
from tenants.site.sites import tenant_site

SHOWN = 20


@tenant_site.panel(rank=10, page=usage.PAGE)
def storage_part(request: HttpRequest) -> Part:
    """How much is kept, and the models with the largest versions."""
    kept, room = kept_bytes(request), current_tenant().max_storage_bytes
    percent = 100 * kept / room if room else 100.0
    models = ModelVersion.objects.order_by().values("model", "model__name")
    largest = models.annotate(total=Sum("bundle__size_bytes"), count=Count("pk")).order_by("-total")[:SHOWN]
    rows = [
        (
            link(page_url(RegisteredModel, "change", one["model"]), one["model__name"]),
            one["count"],
            size(one["total"]),
        )
        for one in largest
    ]
    taken = Facts({"Taken": bar(percent, f"{size(kept)} of {size(room)} ({percent:.1f} %)")})
    table = Table(("Model", "Versions", "Size of its versions"), rows, "No version was uploaded yet.")
    notes = ["Files that several versions share are kept once, so the sizes may sum to more than is taken."]
    return Part("Storage", Several([taken, table]), notes=notes)
