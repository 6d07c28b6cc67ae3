"""What a tenant's datasets and runs take of its quotas, on its page of usage; and where its failed runs are shown."""

from django.db.models import Count, Sum
from django.http import HttpRequest

from tenants.admin import usage
from tenants.models import JobState
from tenants.scope import current_tenant
from tenants.site.pages import page_url
from tenants.site.parts import Facts, Part, Several, Table, bar, link, size
from tenants.site.sites import tenant_site
from training.models import Dataset, DatasetVersion, Purpose, Run, Search
from training.queueing import RUN_KIND
from training.searching import SEARCH_KIND

SHOWN = 20

tenant_site.about_jobs(RUN_KIND, Run)
tenant_site.about_jobs(SEARCH_KIND, Search)


@tenant_site.panel(rank=20, page=usage.PAGE)
def training_part(request: HttpRequest) -> Part:
    """How much datasets and open runs take, and the largest datasets."""
    tenant = current_tenant()
    kept = DatasetVersion.objects.aggregate(total=Sum("size_bytes"))["total"] or 0
    open_states = (JobState.QUEUED, JobState.RUNNING)
    open_runs = Run.objects.filter(job__state__in=open_states).exclude(purpose=Purpose.TRIAL).count()
    taken = {
        "Datasets": _bar(kept, tenant.max_dataset_bytes, f"{size(kept)} of {size(tenant.max_dataset_bytes)}"),
        "Open runs": _bar(open_runs, tenant.max_open_runs, f"{open_runs} of {tenant.max_open_runs}"),
    }
    largest = Dataset.objects.annotate(count=Count("versions"), total=Sum("versions__size_bytes"))
    rows = [
        (link(page_url(Dataset, "change", one.pk), one.name), getattr(one, "count", 0), size(getattr(one, "total", 0)))
        for one in largest.exclude(total=None).order_by("-total")[:SHOWN]
    ]
    table = Table(("Dataset", "Versions", "Size"), rows, "No dataset was uploaded yet.")
    return Part("Training", Several([Facts(taken), table]))


def _bar(taken: int, most: int, words: str) -> object:
    return bar(100 * taken / most if most else 100.0, words)
