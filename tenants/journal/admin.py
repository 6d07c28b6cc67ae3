"""The audit trail of a tenant, to be read by its admins."""

from django.contrib import admin
from django.http import HttpRequest

from tenants.journal.models import AuditEvent
from tenants.models import Scope
from tenants.site.pages import ScopedPages, moment_column
from tenants.site.parts import Facts, Part, when
from tenants.site.sites import Nav, tenant_site


@admin.register(AuditEvent, site=tenant_site)
class AuditPages(ScopedPages):
    """Who did what, and when."""

    see = Scope.ADMIN
    nav = Nav("Access", "history", 62, "Audit trail")
    list_display = ("happened", "actor", "action", "target")
    happened = moment_column("When", "at")
    list_filter = ("action",)
    search_fields = ("actor", "action", "target", "request_id")

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
