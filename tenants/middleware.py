"""Puts each request into the scope of its tenant, and takes it out again."""

from collections.abc import Callable

from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from common.errors import Unauthenticated
from common.http import error_response
from tenants.addressing import ENVIRON_KEY, TENANT_ID
from tenants.models import Tenant, TenantState

API_PREFIXES = ("/api/", "/v2/", "/models/")


class TenantMiddleware:
    """Finds the tenant by `/t/{tenantId}` or by host name and sets `request.tenant`; None on the operator's surface.

    An unknown tenant answers as a known one without a token does (401 below the API, 404 elsewhere), so that nobody
    learns who is a customer.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.tenant_urls = import_string("tenantry.urls.TENANT_SURFACE")

    def __call__(self, request: HttpRequest) -> HttpResponse:
        connection.set_schema_to_public()
        try:
            tenant = tenant_of(request)
        except Tenant.DoesNotExist:
            return self._unknown(request)
        request.tenant = tenant  # type: ignore[attr-defined]
        if tenant is None:
            return self.get_response(request)
        request.urlconf = self.tenant_urls
        connection.set_tenant(tenant)
        try:
            return self.get_response(request)
        finally:
            connection.set_schema_to_public()

    def _unknown(self, request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith(API_PREFIXES):
            return error_response(Unauthenticated("Send a token of this tenant: Authorization: Bearer …"), request)
        raise Http404


def tenant_of(request: HttpRequest) -> Tenant | None:
    """The tenant that the request's path or host names; None on the main host outside any tenant's path.

    Raises:
        Tenant.DoesNotExist: the path names a tenant that there is not.
    """
    tenants = Tenant.objects.exclude(state=TenantState.DELETING)
    tenant_id = request.environ.get(ENVIRON_KEY) if hasattr(request, "environ") else None
    if tenant_id is not None:
        if not TENANT_ID.fullmatch(tenant_id):
            raise Tenant.DoesNotExist
        return tenants.get(tenant_id=tenant_id)
    host = request.get_host().split(":")[0].lower()
    return tenants.filter(domains__domain=host).first()
