"""Operators' tokens, in the operator's admin site."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.widgets import UnfoldAdminSelectMultipleWidget

from tenants import services
from tenants.admin.tokens import HOW_TO_SEND, TokenColumns, TokenForm, lifetime, token_facts
from tenants.models import ApiToken, Scope, Tenant, TenantState
from tenants.site.forms import SwitchField
from tenants.site.pages import Question, answers, column
from tenants.site.parts import Part
from tenants.site.sites import Nav, operator_site

SHOWN_TENANTS = 5


class OperatorTokenForm(TokenForm):
    """What a new operator token may do, and where."""

    all_tenants = SwitchField(required=False, label="For all tenants, those to come included")
    tenants = forms.ModelMultipleChoiceField(
        Tenant.objects.exclude(state=TenantState.DELETING),
        required=False,
        widget=UnfoldAdminSelectMultipleWidget,
        help_text="Or for these alone. Every use shows in the tenant's audit trail.",
    )


@admin.register(ApiToken, site=operator_site)
class OperatorTokenPages(TokenColumns):
    """Tokens that work for several tenants, as the application of a SaaS backend needs."""

    see = Scope.ADMIN
    add = Scope.ADMIN
    add_title = "Issue an operator token"
    nav = Nav("Access", "vpn_key", 31, "Operator tokens")
    list_display = ("name", "hint", "shown_scopes", "where", "state", "created_by", "expires", "last_used")
    search_fields = ("name", "created_by")
    actions_detail = ("revoke",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiToken]:
        return ApiToken.objects.filter(tenant=None).prefetch_related("tenants")

    @column("Tenants")
    def where(self, token: ApiToken) -> str:
        if token.all_tenants:
            return "All"
        listed = [tenant.tenant_id for tenant in token.tenants.all()]
        more = len(listed) - SHOWN_TENANTS
        return ", ".join(listed[:SHOWN_TENANTS]) + (f" and {more} more" if more > 0 else "")

    def parts(self, request: HttpRequest, obj: ApiToken) -> list[Part]:
        return [Part("Token", token_facts(obj), notes=[f"Works for: {self.where(obj)}.", HOW_TO_SEND])]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        self.require_add(request)

        def act(said: dict[str, Any]) -> HttpResponse:
            token, secret = services.issue_operator_token(
                name=said["name"],
                scopes=said["scopes"],
                tenants=said["tenants"],
                all_tenants=said["all_tenants"],
                expires_in=lifetime(said["expires"]),
                actor=self.caller(request).name,
            )
            title = f"The operator token {token.name} was issued"
            return self.show_once(request, title, [("Token", secret)], HOW_TO_SEND, back=self.url("changelist"))

        question = Question("Issue an operator token", "Issue", says=["It is shown once; only its hash is kept."])
        return self.ask(request, question, answers(OperatorTokenForm, request), act, back=self.url("changelist"))
