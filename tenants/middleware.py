"""Puts each request into the scope of its tenant, and takes it out again."""

from collections.abc import Callable, Iterator

from django.conf import settings
from django.db.models.base import ModelState
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.utils.module_loading import import_string

from common.errors import Throttled
from common.http import MLFLOW, OPEN_INFERENCE, error_response, is_api
from common.requests import current_tenant_id
from common.seats import Seats
from tenants.addressing import ENVIRON_KEY, TENANT_ID
from tenants.authentication import unauthenticated
from tenants.models import Tenant, TenantState
from tenants.scope import own, tenant_scope
from tenants.tables import Table

COUNTED = ("/api/", OPEN_INFERENCE, MLFLOW)
IN_FLIGHT = Seats()  # of this process's threads; a tenant that takes all would stop every other one's requests
ABOUT_THE_PROCESS = ("/healthz", "/readyz")  # answered without asking the database whose host this is
MOST_HOSTS, LONGEST_HOST = 1_000, 253
_hosts: dict[str, tuple[object, str]] = {}  # by their header, with the setting that let them in
BY_ID, BY_HOST = "id", "host"
TENANTS: Table[tuple[str, str], Tenant] = Table(
    "tenant", tag_of=lambda _, tenant: str(tenant.uuid), most=20_000, most_absent=10_000
)


class TenantMiddleware:
    """Finds the tenant by `/t/{tenantId}` or by host name and sets `request.tenant`; None on the operator's surface.

    An unknown tenant answers as a known one without a token does (401 below the API, 404 elsewhere), so that nobody
    learns who is a customer.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.tenant_urls = import_string("tenantry.urls.TENANT_SURFACE")

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if own.connection.schema_name != settings.PUBLIC_SCHEMA_NAME:
            own.connection.set_schema_to_public()
        try:
            tenant = None if request.path in ABOUT_THE_PROCESS else tenant_of(request)
        except Tenant.DoesNotExist:
            return self._unknown(request)
        request.tenant = tenant  # type: ignore[attr-defined]
        if tenant is None:
            return self.get_response(request)
        request.urlconf = self.tenant_urls
        if not request.path_info.startswith(COUNTED):
            return self._answer_in_scope(request, tenant)
        return self._answer_counted(request, tenant)

    def _answer_counted(self, request: HttpRequest, tenant: Tenant) -> HttpResponse:
        whose = tenant.schema_name
        if not IN_FLIGHT.take(whose, settings.TENANT_REQUESTS_IN_FLIGHT):
            return error_response(_too_many(), request)
        try:
            return self._answer_in_scope(request, tenant)
        finally:
            IN_FLIGHT.give_back(whose)

    def _answer_in_scope(self, request: HttpRequest, tenant: Tenant) -> HttpResponse:
        own.connection.set_tenant(tenant)
        named = current_tenant_id.set(tenant.tenant_id)
        try:
            response = self.get_response(request)
        finally:
            current_tenant_id.reset(named)
            own.connection.set_schema_to_public()  # whatever scope a view has left open
        if isinstance(response, StreamingHttpResponse):
            response.streaming_content = chunks_in_scope(tenant, iter(response))
        return response

    def _unknown(self, request: HttpRequest) -> HttpResponse:
        if is_api(request):
            return error_response(unauthenticated(request), request)
        raise Http404


def _too_many() -> Throttled:
    most = settings.TENANT_REQUESTS_IN_FLIGHT
    return Throttled(
        f"{most} requests of this tenant are being answered by this process, which is as many as it takes at once; "
        "try again in a moment.",
        code="too_many_requests",
        retry_after_s=1,
    )


def chunks_in_scope(tenant: Tenant, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks of a body that is sent after its view has returned, each made in the tenant's scope.

    The scope is left between chunks: who iterates may abandon the body at any of them.
    """
    while True:
        with tenant_scope(tenant):
            chunk = next(chunks, None)
        if chunk is None:
            return
        yield chunk


def tenant_of(request: HttpRequest) -> Tenant | None:
    """The tenant that the request's path or host names; None on the main host outside any tenant's path.

    Raises:
        Tenant.DoesNotExist: the path names a tenant that there is not, or the host is another's or one being deleted.
    """
    named = request.environ.get(ENVIRON_KEY) if hasattr(request, "environ") else None
    if named is not None and not TENANT_ID.fullmatch(named):
        raise Tenant.DoesNotExist
    hosted = _hosted(_host_of(request))
    found = hosted if named is None else _named(named)
    if named is None and found is None:
        return None
    if found is None or found.state == TenantState.DELETING or (hosted is not None and hosted.pk != found.pk):
        raise Tenant.DoesNotExist
    return _own_copy(found)


def _host_of(request: HttpRequest) -> str:
    """The host name that was asked for, as domains are written.

    Raises:
        DisallowedHost: it is none, or none of ours.
    """
    written, allowed = request.META.get("HTTP_HOST", ""), settings.ALLOWED_HOSTS
    checked_against, host = _hosts.get(written, (None, ""))
    if checked_against is allowed:
        return host
    host = request.get_host().split(":")[0].lower().removesuffix(".")
    if 0 < len(written) <= LONGEST_HOST:
        if len(_hosts) >= MOST_HOSTS:
            _hosts.clear()
        _hosts[written] = (allowed, host)
    return host


def _hosted(host: str) -> Tenant | None:
    if len(host) > LONGEST_HOST:  # nobody's, and nothing to remember
        return None
    return TENANTS.get((BY_HOST, host), lambda: Tenant.objects.filter(domains__domain=host).first())


def _named(tenant_id: str) -> Tenant | None:
    return TENANTS.get((BY_ID, tenant_id), lambda: Tenant.objects.filter(tenant_id=tenant_id).first())


def _own_copy(tenant: Tenant) -> Tenant:
    """The tenant for one request, whose view may change it or bring it up to date; `copy.copy` would take 10 us."""
    own = Tenant.__new__(Tenant)
    own.__dict__.update(tenant.__dict__)
    own._state = ModelState()
    own._state.db, own._state.adding = tenant._state.db, False
    return own
