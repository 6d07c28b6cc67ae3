"""The members of a tenant, in its own admin site."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import get_script_prefix
from django.utils.safestring import SafeString

from tenants import services
from tenants.models import Membership, Role, Scope
from tenants.scope import current_tenant
from tenants.site.forms import ChoiceField, EmailField, PageForm
from tenants.site.pages import Question, ScopedPages, answers, column, moment_column, object_action
from tenants.site.parts import Facts, Part, when
from tenants.site.sites import Nav, tenant_site

ROLE_TONES = {Role.ADMIN.value: "primary", Role.DATA_SCIENTIST.value: "info"}
WHAT_ROLES_MAY = (
    "Viewers see; data scientists also upload, train and predict; admins also decide what serves and who comes in."
)


class MemberForm(PageForm):
    """Whom to add, as what."""

    email = EmailField()
    role = ChoiceField(choices=Role.choices, help_text=WHAT_ROLES_MAY)


class RoleForm(PageForm):
    """What somebody is to be."""

    role = ChoiceField(choices=Role.choices, help_text=WHAT_ROLES_MAY)


@admin.register(Membership, site=tenant_site)
class MemberPages(ScopedPages):
    """Who may come in, and as what."""

    see = Scope.ADMIN
    add = Scope.ADMIN
    add_title = "Add a member"
    nav = Nav("Access", "group", 60, "Members")
    list_display = ("email", "shown_role", "last_seen", "since")
    since = moment_column("Since", "created_at")
    list_filter = ("role",)
    search_fields = ("user__email", "user__name")
    actions_detail = ("change_role", "reset_link", "remove")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        return Membership.objects.filter(tenant=current_tenant()).select_related("user", "tenant")

    @column("Email", ordering="user__email")
    def email(self, membership: Membership) -> str:
        return membership.user.email

    @column("Last logged in", ordering="user__last_login")
    def last_seen(self, membership: Membership) -> SafeString | str:
        return when(membership.user.last_login) or "Never"

    @column("Role", ordering="role", tones=ROLE_TONES)
    def shown_role(self, membership: Membership) -> tuple[str, str]:
        return membership.role, membership.get_role_display()

    def parts(self, request: HttpRequest, obj: Membership) -> list[Part]:
        facts = {
            "Email": obj.user.email,
            "Name": obj.user.name,
            "Role": obj.get_role_display(),
            "Member since": when(obj.created_at),
            "Last logged in": when(obj.user.last_login) or "Never",
        }
        return [Part("Member", Facts(facts), notes=[WHAT_ROLES_MAY])]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        self.require_add(request)

        def act(said: dict[str, Any]) -> str | HttpResponse:
            member, password = services.add_member(tenant=current_tenant(), actor=self.caller(request).name, **said)
            if password is None:
                return f"{member.user.email} is a member now, with the password they have."
            return self.show_once(
                request,
                f"{member.user.email} is a member now",
                [("First password", password)],
                "They log in with their email address and this password; the menu below their name changes it.",
                back=self.url("changelist"),
            )

        question = Question("Add a member", "Add", says=["They get a first password, which you pass on to them."])
        return self.ask(request, question, answers(MemberForm, request), act, back=self.url("changelist"))

    @object_action("Change role", "manage_accounts", Scope.ADMIN, "role")
    def change_role(self, request: HttpRequest, object_id: str) -> HttpResponse:
        member: Membership = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            services.change_role(membership=member, actor=self.caller(request).name, role=said["role"])
            return f"{member.user.email} is {Role(said['role']).label} now."

        question = Question(f"Change the role of {member.user.email}", "Change")
        form = answers(RoleForm, request, initial={"role": member.role})
        return self.ask(request, question, form, act, about=member, back=self.url("change", member.pk))

    @object_action("Reset link", "key", Scope.ADMIN, "reset-link")
    def reset_link(self, request: HttpRequest, object_id: str) -> HttpResponse:
        member: Membership = self.found(request, object_id)

        def act(said: dict[str, Any]) -> HttpResponse:
            caller = self.caller(request)
            path = services.reset_path(membership=member, actor=caller.name, by_operator=caller.is_operator)
            link = request.build_absolute_uri(f"{get_script_prefix()}{path}")
            return self.show_once(
                request,
                f"A link for {member.user.email}",
                [("Link", link)],
                "Whoever opens it sets a new password for this account: once, within three days.",
                back=self.url("change", member.pk),
            )

        says = ["No mail is sent: you get the link and pass it on. The present password works until the link is used."]
        question = Question(f"Make a link by which {member.user.email} sets a new password", "Make the link", says=says)
        form = answers(PageForm, request)
        return self.ask(request, question, form, act, about=member, back=self.url("change", member.pk))

    @object_action("Remove", "person_remove", Scope.ADMIN, "remove")
    def remove(self, request: HttpRequest, object_id: str) -> HttpResponse:
        member: Membership = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            services.remove_member(membership=member, actor=self.caller(request).name)
            return f"{member.user.email} is no longer a member."

        says = ["They can no longer log in here. What they uploaded stays, and so do tokens that they issued."]
        question = Question(f"Remove {member.user.email}?", "Remove", says=says, is_final=True)
        return self.ask(request, question, answers(PageForm, request), act, about=member, back=self.url("changelist"))
