"""The admin sites: a tenant's below its address, the operator's on the main host. Neither asks for permission rows."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.views import LogoutView
from django.core.exceptions import PermissionDenied
from django.db.models import Model
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
from tenants.site.attention import Concern, attention_part
from tenants.site.parts import Part

PanelMaker = Callable[[HttpRequest], Part | None]
ConcernMaker = Callable[[HttpRequest], Iterable[Concern]]
PageView = Callable[[HttpRequest], HttpResponse]
HOME = ""
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


Entry = tuple[Nav, str, str]  # where it stands in the sidebar, its path, its words


@dataclass(frozen=True)
class SitePage:
    """A page of a site that is about no single model's rows. scope: what a caller needs to see it."""

    name: str
    view: PageView
    nav: Nav
    scope: str


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
        self._panels: dict[str, list[tuple[int, PanelMaker]]] = {}
        self._pages: list[SitePage] = []
        self._concerns: list[ConcernMaker] = []
        self.job_models: dict[str, type[Model]] = {}

    def has_permission(self, request: HttpRequest) -> bool:
        return visitor(request) is not None

    def get_urls(self) -> list[Any]:
        own = [path(f"{page.name}/", self.admin_view(self._opened(page)), name=page.name) for page in self._pages]
        # Before Django's own path of that name, which sends who is not in to the home instead.
        return [path("logout/", self.logout, name="logout"), *own, *super().get_urls()]

    def page(self, name: str, nav: Nav, scope: str) -> Callable[[PageView], PageView]:
        """Decorate a view with this to have it at `NAME/` (`admin:NAME`) and in the sidebar, for callers with the
        scope."""

        def add(view: PageView) -> PageView:
            self._pages.append(SitePage(name, view, nav, scope))
            return view

        return add

    def shown(self, request: HttpRequest, template: str, title: str, **context: Any) -> TemplateResponse:
        """A page in the frame of the site."""
        request.current_app = self.name
        return TemplateResponse(request, template, self.each_context(request) | {"title": title} | context)

    def _opened(self, page: SitePage) -> PageView:
        def view(request: HttpRequest) -> HttpResponse:
            if not _may(request, page.scope):
                raise PermissionDenied
            return page.view(request)

        return view

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

    def panel(self, rank: int, page: str = HOME) -> Callable[[PanelMaker], PanelMaker]:
        """Decorate a function with this to have its panel on the site's home, or on another page of the site; the
        lowest rank stands first."""

        def add(make: PanelMaker) -> PanelMaker:
            self._panels.setdefault(page, []).append((rank, make))
            return make

        return add

    def panels(self, request: HttpRequest, page: str) -> list[Part]:
        """The panels of a page of the site."""
        ranked = sorted(self._panels.get(page, ()), key=lambda one: one[0])
        return [part for _, make in ranked if (part := make(request))]

    def concern(self, find: ConcernMaker) -> ConcernMaker:
        """Decorate a function with this to have what it finds among what needs attention on the site's home."""
        self._concerns.append(find)
        return find

    def about_jobs(self, kind: str, model: type[Model]) -> None:
        """Have failed jobs of this kind link to the pages of this model, whose rows have the jobs' object ids."""
        self.job_models[kind] = model

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        concerns = attention_part([concern for find in self._concerns for concern in find(request)])
        panels = [*([concerns] if concerns else []), *self.panels(request, HOME)]
        context = {"panels": panels, **(extra_context or {})}
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
        entries = [_entry(one) for one in seen if one.has_view_permission(request)]
        entries += [
            (page.nav, reverse(f"admin:{page.name}"), page.nav.title)
            for page in self._pages
            if _may(request, page.scope)
        ]
        home = reverse("admin:index")
        first = [_item("Home", "home", home, request.path == home), _item("API", "api", reverse("docs"), False)]
        return [{"title": "", "items": first}, *_sections(request, sorted(entries, key=lambda one: one[0].rank))]


def _may(request: HttpRequest, scope: str) -> bool:
    caller = visitor(request)
    return caller is not None and caller.may(scope)


def _item(title: str, icon: str, link: str, is_active: bool) -> dict[str, Any]:
    return {"title": title, "icon": icon, "link": link, "active": is_active, "has_permission": True}


def _entry(pages: Any) -> Entry:
    options = pages.model._meta
    link = reverse(f"admin:{options.app_label}_{options.model_name}_changelist")
    return pages.nav, link, pages.nav.title or str(options.verbose_name_plural).capitalize()


def _sections(request: HttpRequest, entries: Iterable[Entry]) -> list[dict[str, Any]]:
    sections: dict[str, list[dict[str, Any]]] = {}
    for nav, link, title in entries:
        item = _item(title, nav.icon, link, request.path.startswith(link))
        sections.setdefault(nav.section, []).append(item)
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
