"""What training shows on a tenant's home."""

from django.http import HttpRequest

from tenants.models import Scope
from tenants.site.pages import page_url
from tenants.site.parts import Part, Table, link, numbers, when
from tenants.site.sites import tenant_site, visitor
from tenants.site.work import progress_of, state_label
from training.admin.run_parts import run_name, run_url
from training.models import HEAVY, Purpose, Run

SHOWN = 8


@tenant_site.panel(rank=15)
def runs_panel(request: HttpRequest) -> Part:
    """The runs that came last."""
    runs = Run.objects.select_related("job", "dataset_version__dataset", "version__model").defer(*HEAVY)
    rows = [
        (
            link(run_url(run), run_name(run)),
            state_label(run.state),
            progress_of(run.job),
            run.model_name,
            numbers(run.metrics),
            when(run.created_at),
        )
        for run in runs.exclude(purpose=Purpose.TRIAL).order_by("-created_at")[:SHOWN]
    ]
    caller = visitor(request)
    start = (page_url(Run, "add"), "Start a run") if caller and caller.may(Scope.WRITE) else None
    empty = "No run was started yet. Upload a dataset, then train on it."
    table = Table(("Run", "State", "", "Model", "Metrics", "Started"), rows, empty)
    return Part("Latest runs", table, start, is_wide=True)
