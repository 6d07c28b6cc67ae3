"""People, in the operator's admin site."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse

from tenants import services
from tenants.models import Membership, Scope, User
from tenants.site.forms import PageForm
from tenants.site.pages import Question, ScopedPages, answers, column, moment_column, object_action, page_url
from tenants.site.parts import Facts, Part, Table, link, when
from tenants.site.sites import Nav, operator_site


@admin.register(User, site=operator_site)
class UserPages(ScopedPages):
    """Everybody who may log in somewhere."""

    see = Scope.ADMIN
    nav = Nav("Access", "person", 30, "People")
    list_display = ("email", "name", "is_operator", "is_active", "tenant_count", "logged_in", "known")
    logged_in = moment_column("Last logged in", "last_login")
    known = moment_column("Known since", "date_joined")
    list_filter = ("is_superuser", "is_active")
    search_fields = ("email", "name", "memberships__tenant__tenant_id")
    ordering = ("email",)
    actions_detail = ("reset_link",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return User.objects.annotate(membership_count=Count("memberships", distinct=True))

    @column("Operator", boolean=True, ordering="is_superuser")
    def is_operator(self, user: User) -> bool:
        return user.is_superuser

    @column("Tenants", ordering="membership_count")
    def tenant_count(self, user: User) -> int:
        return int(getattr(user, "membership_count", 0))

    def parts(self, request: HttpRequest, obj: User) -> list[Part]:
        facts = {
            "Email": obj.email,
            "Name": obj.name,
            "Operator": "Yes" if obj.is_superuser else "No",
            "May log in": "Yes" if obj.is_active else "No",
            "Known since": when(obj.date_joined),
            "Last logged in": when(obj.last_login) or "Never",
        }
        rows = [
            (
                link(page_url(one.tenant, "change", one.tenant_id), one.tenant),
                one.get_role_display(),
                when(one.created_at),
            )
            for one in obj.memberships.select_related("tenant").order_by("tenant__tenant_id")
        ]
        memberships = Table(("Tenant", "Role", "Since"), rows, "They are a member nowhere.")
        return [Part("Person", Facts(facts)), Part("Memberships", memberships)]

    def applies(self, action: str, obj: User) -> bool:
        return int(self.tenant_count(obj)) > 0

    @object_action("Reset link", "key", Scope.ADMIN, "reset-link")
    def reset_link(self, request: HttpRequest, object_id: str) -> HttpResponse:
        user: User = self.found(request, object_id)
        member = Membership.objects.filter(user=user).select_related("user", "tenant").first()

        def act(said: dict[str, Any]) -> str | HttpResponse:
            if member is None:
                return f"{user.email} is a member of no tenant, so there is no address to open a link at."
            path = services.reset_path(membership=member, actor=self.caller(request).name, by_operator=True)
            link = request.build_absolute_uri(f"{member.tenant.base_path}/{path}")
            says = "Whoever opens it sets a new password for this account: once, within three days."
            back = self.url("change", user.pk)
            return self.show_once(request, f"A link for {user.email}", [("Link", link)], says, back=back)

        says = ["No mail is sent: you get the link and pass it on. The present password works until the link is used."]
        question = Question(f"Make a link by which {user.email} sets a new password", "Make the link", says=says)
        back = self.url("change", user.pk)
        return self.ask(request, question, answers(PageForm, request), act, about=user, back=back)
