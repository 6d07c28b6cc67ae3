"""The admin sites: a tenant's below its address, the operator's on the main host. Neither asks for permission rows."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.views import LogoutView
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.templatetags.static import static
from django.urls import path, reverse
from unfold.dataclasses import Favicon
from unfold.sites import UnfoldAdminSite

from common.errors import Denied, Unauthenticated
from tenants.authentication import INCLUDES, Caller, authenticate
from tenants.models import Role, Tenant
from tenants.site.parts import Part

PanelMaker = Callable[[HttpRequest], Part | None]
TenantPartMaker = Callable[[HttpRequest, Tenant], Part]


def visitor(request: HttpRequest) -> Caller | None:
    """Who is logged in with a session and may be at this address at all; found once a request."""
    if not hasattr(request, "admin_caller"):
        request.admin_caller = _session_caller(request)  # type: ignore[attr-defined]
    found: Caller | None = request.admin_caller  # type: ignore[attr-defined]
    return found


def _session_caller(request: HttpRequest) -> Caller | None:
    try:
        caller = authenticate(request)
    except (Unauthenticated, Denied):
        return None
    return caller if caller.user else None  # pages are for people: a token does not open them


def tenant_of_request(request: HttpRequest) -> Tenant | None:
    """The tenant whose address was asked; None on the operator's surface."""
    tenant: Tenant | None = getattr(request, "tenant", None)
    return tenant


@dataclass(frozen=True)
class Nav:
    """Where a model's pages stand in the sidebar: below which heading, and how far down (`rank`)."""

    section: str
    icon: str
    rank: int
    title: str = ""


def look() -> dict[str, Any]:
    """What unfold's frame needs to know of the sites' looks; all of it is served from here."""
    return {
        "styles": [static("admin_tenantry/theme.css"), static("admin_tenantry/admin.css")],
        "scripts": [static("admin_tenantry/admin.js")],
        "site_favicons": [Favicon(href=static("pages/icon.svg"), rel="icon", type="image/svg+xml")],
        "site_icon": static("pages/icon.svg"),
        "site_url": None,
        "show_history": False,
    }


class CallerSite(UnfoldAdminSite):  # type: ignore[misc]
    """An admin site that knows its visitors by `Caller`. Apps register their pages and their panels of its home."""

    index_template = "admin/home.html"
    index_title = "Home"
    enable_nav_sidebar = True

    def __init__(self) -> None:
        # Both sites have Django's own name for one: they stand in separate urlconfs, and many templates spell it out.
        super().__init__("admin")
        self._panels: list[tuple[int, PanelMaker]] = []

    def has_permission(self, request: HttpRequest) -> bool:
        return visitor(request) is not None

    def get_urls(self) -> list[Any]:
        # Before Django's own path of that name, which sends who is not in to the home instead.
        return [path("logout/", self.logout, name="logout"), *super().get_urls()]

    # Logging in and out and changing passwords are done once, by the platform's own pages (`tenants.ui`).

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if self.has_permission(request):
            return redirect("admin:index")
        query = request.GET.urlencode()
        return HttpResponseRedirect(reverse("login") + (f"?{query}" if query else ""))

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response: HttpResponse = LogoutView.as_view(next_page="login")(request)
        return response

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return redirect("password_change")

    def panel(self, rank: int) -> Callable[[PanelMaker], PanelMaker]:
        """Decorate a function with this to have its panel on the site's home; the lowest rank stands first."""

        def add(make: PanelMaker) -> PanelMaker:
            self._panels.append((rank, make))
            return make

        return add

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        panels = (make(request) for _, make in sorted(self._panels, key=lambda ranked: ranked[0]))
        context = {"panels": [panel for panel in panels if panel], **(extra_context or {})}
        response: TemplateResponse = super().index(request, context)
        return response

    def search(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        # unfold keeps answers in the shared cache by user and term alone, so one tenant's would reach another's pages.
        raise Http404

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        context: dict[str, Any] = super().each_context(request)
        context["colors"] = None  # theme.css has them: a style in the page itself would break the page's policy
        return context | look() | {"caller_is": self.standing(request)} | self.titles(request)

    def standing(self, request: HttpRequest) -> str:
        """What the visitor is here, in a word."""
        caller = visitor(request)
        if caller is None:
            return ""
        return (
            "Operator"
            if caller.is_operator
            else next(role.label for role in Role if caller.scopes == INCLUDES[role.scope])
        )

    def titles(self, request: HttpRequest) -> dict[str, str]:
        """The names of the site. Never through unfold's settings, which import whatever looks like a dotted path."""
        return {"site_title": "Tenantry", "site_header": "Tenantry"}

    def get_sidebar_list(self, request: HttpRequest) -> list[dict[str, Any]]:
        seen = [pages for pages in self._registry.values() if getattr(pages, "nav", None)]
        pages = sorted((one for one in seen if one.has_view_permission(request)), key=lambda one: one.nav.rank)
        home = reverse("admin:index")
        first = [_item("Home", "home", home, request.path == home), _item("API", "api", reverse("docs"), False)]
        return [{"title": "", "items": first}, *_sections(request, pages)]


def _item(title: str, icon: str, link: str, is_active: bool) -> dict[str, Any]:
    return {"title": title, "icon": icon, "link": link, "active": is_active, "has_permission": True}


def _sections(request: HttpRequest, pages: Iterable[Any]) -> list[dict[str, Any]]:
    sections: dict[str, list[dict[str, Any]]] = {}
    for one in pages:
        options = one.model._meta
        link = reverse(f"admin:{options.app_label}_{options.model_name}_changelist")
        title = one.nav.title or str(options.verbose_name_plural).capitalize()
        item = _item(title, one.nav.icon, link, request.path.startswith(link))
        sections.setdefault(one.nav.section, []).append(item)
    return [{"title": title, "items": items} for title, items in sections.items()]


class TenantSite(CallerSite):
    """The pages of one tenant, for its members by their roles, and for operators."""

    def titles(self, request: HttpRequest) -> dict[str, str]:
        tenant = tenant_of_request(request)
        if tenant is None:
            return super().titles(request)
        # The name is for those who are in; a stranger reads no more than what the address says.
        name = tenant.name if self.has_permission(request) else tenant.tenant_id
        return {"site_title": name, "site_header": name, "site_subheader": f"/t/{tenant.tenant_id}"}


class OperatorSite(CallerSite):
    """The platform's pages, for operators alone. Apps above add to what it shows of a tenant."""

    def __init__(self) -> None:
        super().__init__()
        self._tenant_parts: list[TenantPartMaker] = []

    def tenant_part(self, make: TenantPartMaker) -> TenantPartMaker:
        """Decorate a function with this to have its part on every tenant's page."""
        self._tenant_parts.append(make)
        return make

    def tenant_parts(self, request: HttpRequest, tenant: Tenant) -> list[Part]:
        """What the apps have to show of this tenant."""
        return [make(request, tenant) for make in self._tenant_parts]

    def has_permission(self, request: HttpRequest) -> bool:
        caller = visitor(request)
        return caller is not None and caller.is_operator and tenant_of_request(request) is None

    def titles(self, request: HttpRequest) -> dict[str, str]:
        return {"site_title": "Tenantry", "site_header": "Tenantry", "site_subheader": "Operator"}


tenant_site = TenantSite()
operator_site = OperatorSite()
