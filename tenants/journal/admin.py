"""The audit trail of a tenant, to be read and exported by its admins."""

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.urls import path
from django.utils import timezone

from tenants.journal.export import csv_lines
from tenants.journal.models import AuditEvent
from tenants.models import Scope
from tenants.scope import current_tenant
from tenants.site.filters import KnownValues
from tenants.site.pages import ScopedPages, moment_column
from tenants.site.parts import Facts, Part, when
from tenants.site.sites import Nav, tenant_site

PERIODS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7), "month": timedelta(days=30)}


class PeriodFilter(admin.SimpleListFilter):
    """Events of the last hour, day, week or month."""

    title = "when"
    parameter_name = "within"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, f"Last {name}") for name in PERIODS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        period = PERIODS.get(self.value() or "")
        return queryset.filter(at__gte=timezone.now() - period) if period else queryset


@admin.register(AuditEvent, site=tenant_site)
class AuditPages(ScopedPages):
    """Who did what, and when."""

    see = Scope.ADMIN
    nav = Nav("Access", "history", 62, "Audit trail")
    list_display = ("happened", "actor", "action", "target")
    happened = moment_column("When", "at")
    list_filter = (PeriodFilter, ("action", KnownValues), ("actor", KnownValues))
    search_fields = ("actor", "action", "target", "request_id")
    show_full_result_count = False
    list_before_template = "admin/audit_export.html"

    def get_urls(self) -> list[Any]:
        export = path("export/", self.admin_site.admin_view(self.export), name="journal_auditevent_export")
        return [export, *super().get_urls()]

    def export(self, request: HttpRequest) -> HttpResponseBase:
        """What the list shows with the same filters, all of it, as CSV."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            events = self.get_changelist_instance(request).get_queryset(request)
        except IncorrectLookupParameters as error:
            raise Http404 from error
        tenant = current_tenant()
        response = StreamingHttpResponse(csv_lines(events, tenant), content_type="text/csv; charset=utf-8")
        name = f"{tenant.tenant_id}-audit-{timezone.now():%Y-%m-%d}.csv"
        response["Content-Disposition"] = f'attachment; filename="{name}"'
        response["X-Content-Type-Options"] = "nosniff"
        return response

    def parts(self, request: HttpRequest, obj: AuditEvent) -> list[Part]:
        facts = {
            "When": when(obj.at),
            "Who": obj.actor,
            "What": obj.action,
            "To what": obj.target,
            "Request": obj.request_id,
        }
        details = Facts(obj.detail, empty="There are no details.")
        return [Part("Event", Facts(facts)), Part("Details", details)]
