"""What each tenant keeps and does, side by side.

A tenant's tables lie in a schema of its own, so one query asks the schemas of a page's tenants together: however many
tenants there are, a page costs as many queries as with one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.paginator import Page, Paginator
from django.db import connection
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from psycopg2 import sql

from inference.counting import Predicted, predicted_by
from tenants.models import Job, JobState, Scope, Tenant
from tenants.site.pages import page_url
from tenants.site.parts import Part, Table, bar, link, size
from tenants.site.sites import Nav, operator_site

PER_PAGE = 50
COUNTED = sql.SQL(
    "SELECT {name} AS schema_name,"
    " (SELECT count(*) FROM {schema}.models_registry_registeredmodel) AS models,"
    " (SELECT count(*) FROM {schema}.models_registry_modelversion) AS versions,"
    " (SELECT coalesce(sum(size_bytes), 0) FROM {schema}.models_registry_blob) AS size_bytes,"
    " (SELECT count(*) FROM {schema}.training_datasetversion) AS datasets,"
    " (SELECT count(*) FROM {schema}.training_run) AS runs"
)


@operator_site.page("tenants-usage", Nav("Platform", "data_usage", 11, "Usage"), Scope.ADMIN)
def usage(request: HttpRequest) -> HttpResponse:
    """A row a tenant."""
    tenants = Tenant.objects.order_by("tenant_id")
    page = Paginator(tenants, PER_PAGE).get_page(request.GET.get("page"))
    return operator_site.shown(request, "admin/detail.html", "Usage", parts=[_usage_part(page)])


def _usage_part(page: "Page[Tenant]") -> Part:
    tenants = list(page.object_list)
    kept, jobs = counted(tenants), _jobs_of(tenants)
    predictions, fault = _predictions_of(tenants)
    rows = [
        _row(one, kept.get(one.schema_name), jobs.get(one.pk, {}), predictions.get(one.schema_name)) for one in tenants
    ]
    headers = (
        *("Tenant", "Kept", "Models", "Versions", "Datasets", "Runs"),
        *("Predictions", "Rows", "Errors", "Open jobs", "Failed jobs"),
    )
    total = page.paginator.count
    notes = [
        f"Tenants {page.start_index()} to {page.end_index()} of {total}." if total else "",
        f"How many predictions there were is not known: {fault}." if fault else "Predictions are those of a busy week.",
    ]
    empty = "There are no tenants yet."
    more = (f"?page={page.next_page_number()}", "Next tenants") if page.has_next() else None
    table = Table(headers, rows, empty)
    return Part("Usage", table, more, notes=[note for note in notes if note], is_wide=True)


def _row(
    tenant: Tenant, kept: Mapping[str, int] | None, jobs: Mapping[str, int], predicted: Predicted | None
) -> Sequence[Any]:
    share = 100 * kept["size_bytes"] / max(tenant.max_storage_bytes, 1) if kept else 0.0
    of_schema = (
        (
            bar(share, f"{size(kept['size_bytes'])} of {size(tenant.max_storage_bytes)}"),
            *(f"{kept[name]:,}" for name in ("models", "versions", "datasets", "runs")),
        )
        if kept
        else ("Its schema is gone.", "", "", "", "")
    )
    asked = (f"{predicted.calls:,}", f"{predicted.rows:,}", f"{predicted.failed:,}") if predicted else ("0", "0", "0")
    return (
        link(page_url(tenant, "change", tenant.pk), tenant.tenant_id),
        *of_schema,
        *asked,
        jobs.get("open", 0),
        jobs.get("failed", 0),
    )


def counted(tenants: Sequence[Tenant]) -> dict[str, dict[str, int]]:
    """What lies in these tenants' schemas, by their names; nothing of a tenant whose schema is not there."""
    with connection.cursor() as cursor:
        names = [tenant.schema_name for tenant in tenants]
        cursor.execute("SELECT nspname FROM pg_namespace WHERE nspname = ANY(%s)", [names])
        known = [name for (name,) in cursor.fetchall()]
        if not known:
            return {}
        branches = [COUNTED.format(name=sql.Literal(name), schema=sql.Identifier(name)) for name in known]
        cursor.execute(sql.SQL(" UNION ALL ").join(branches))
        columns = [column.name for column in cursor.description or ()]
        found = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    return {str(row.pop("schema_name")): {name: int(value) for name, value in row.items()} for row in found}


def _jobs_of(tenants: Sequence[Tenant]) -> dict[Any, Mapping[str, int]]:
    open_states = Q(state__in=(JobState.QUEUED, JobState.RUNNING))
    grouped = Job.objects.filter(tenant__in=tenants).order_by().values("tenant")
    counts = grouped.annotate(
        open_count=Count("pk", filter=open_states), failed_count=Count("pk", filter=Q(state=JobState.FAILED))
    )
    return {row["tenant"]: {"open": row["open_count"], "failed": row["failed_count"]} for row in counts}


def _predictions_of(tenants: Sequence[Tenant]) -> tuple[dict[str, Predicted], str]:
    try:
        return predicted_by([tenant.schema_name for tenant in tenants]), ""
    except Exception as error:  # Valkey may be away: what tenants keep is known without it
        return {}, type(error).__name__
