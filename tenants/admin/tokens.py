"""The tokens of a tenant, in its own admin site."""

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from tenants import services
from tenants.models import ApiToken, Scope
from tenants.scope import current_tenant
from tenants.site.forms import ChoiceField, ChoicesField, PageForm, TextField
from tenants.site.pages import Question, ScopedPages, answers, column, moment_column, object_action
from tenants.site.parts import Facts, Part, when
from tenants.site.sites import Nav, tenant_site

LIFETIMES = (("90", "90 days"), ("30", "30 days"), ("365", "A year"), ("0", "It never expires"))
TOKEN_TONES = {"usable": "success", "expired": "warning", "revoked": "danger"}
HOW_TO_SEND = "Send it as 'Authorization: Bearer TOKEN', or as the password of Basic authentication."


def lifetime(days: str) -> timedelta | None:
    """How long a token of this choice is valid; None for ever."""
    return timedelta(days=int(days)) if int(days) else None


def token_state(token: ApiToken) -> str:
    """Whether it works, and if not, why."""
    if token.revoked_at:
        return "revoked"
    return "usable" if token.is_usable else "expired"


def token_facts(token: ApiToken) -> Facts:
    """What is known of a token; its secret is not."""
    return Facts(
        {
            "Name": token.name,
            "Begins with": token.hint,
            "Scopes": ", ".join(token.scopes),
            "State": token_state(token).capitalize(),
            "Issued": when(token.created_at),
            "Issued by": token.created_by,
            "Expires": when(token.expires_at) or "Never",
            "Revoked": when(token.revoked_at),
            "Last used": when(token.last_used_at) or "Never",
        }
    )


class TokenForm(PageForm):
    """What a new token is called and may do."""

    name = TextField(max_length=100, help_text="What it is for, as it stands in the audit trail.")
    scopes = ChoicesField(
        choices=Scope.choices, help_text="Administer includes write, which includes read and predict."
    )
    expires = ChoiceField(choices=LIFETIMES)


class TokenColumns(ScopedPages):
    """What lists of tokens show."""

    expires = moment_column("Expires", "expires_at", "Never")
    last_used = moment_column("Last used", "last_used_at", "Never")

    @column("State", tones=TOKEN_TONES)
    def state(self, token: ApiToken) -> str:
        return token_state(token)

    @column("Scopes")
    def shown_scopes(self, token: ApiToken) -> str:
        return ", ".join(token.scopes)

    def applies(self, action: str, obj: ApiToken) -> bool:
        return action != "revoke" or obj.revoked_at is None

    @object_action("Revoke", "block", Scope.ADMIN, "revoke")
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        token: ApiToken = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            services.revoke_token(token=token, actor=self.caller(request).name)
            return f"The token {token.name} no longer works."

        says = ["Whatever uses it is refused from now on. A revoked token cannot be brought back."]
        question = Question(f"Revoke the token {token.name}?", "Revoke", says=says, is_final=True)
        back = self.url("change", token.pk)
        return self.ask(request, question, answers(PageForm, request), act, about=token, back=back)


@admin.register(ApiToken, site=tenant_site)
class TokenPages(TokenColumns):
    """Tokens by which programs come in."""

    see = Scope.ADMIN
    add = Scope.ADMIN
    add_title = "Issue a token"
    none_yet = "A program needs one to ask for predictions."
    nav = Nav("Access", "key", 61, "Tokens")
    list_display = ("name", "hint", "shown_scopes", "state", "created_by", "expires", "last_used")
    search_fields = ("name", "created_by")
    actions_detail = ("revoke",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiToken]:
        return ApiToken.objects.filter(tenant=current_tenant()).select_related("tenant")

    def parts(self, request: HttpRequest, obj: ApiToken) -> list[Part]:
        return [Part("Token", token_facts(obj), notes=[HOW_TO_SEND])]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        self.require_add(request)

        def act(said: dict[str, Any]) -> HttpResponse:
            token, secret = services.issue_token(
                tenant=current_tenant(),
                name=said["name"],
                scopes=said["scopes"],
                expires_in=lifetime(said["expires"]),
                actor=self.caller(request).name,
            )
            title = f"The token {token.name} was issued"
            return self.show_once(request, title, [("Token", secret)], HOW_TO_SEND, back=self.url("changelist"))

        question = Question("Issue a token", "Issue", says=["The token is shown once; only its hash is kept."])
        return self.ask(request, question, answers(TokenForm, request), act, back=self.url("changelist"))
