"""Lets members upload through the admin's pages, whose bodies are read before a page sees them."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from common.error_pages import answer
from common.errors import PlatformError
from common.http import status_of
from models_registry.quota import check_announced
from models_registry.spooling import SpoolingUploadHandler
from tenants.authentication import INCLUDES
from tenants.models import Membership, Role, Scope, Tenant, User

PAGES = "/admin/"


class UploadPagesMiddleware:
    """Has files of a member's form received, if the member may write and the tenant has room for what is announced.

    It stands behind the middleware that knows the session. The CSRF check comes after every middleware's beginning; it
    finds its token in the body, so files are on the disk by then, and nothing is done with them if it fails.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if _brings_files(request) and _may_upload(request):
            try:
                check_announced(int(request.META.get("CONTENT_LENGTH") or 0))
            except PlatformError as error:
                return answer(request, status_of(error), error.message)
            request.upload_handlers = [SpoolingUploadHandler(request)]
        return self.get_response(request)


def _brings_files(request: HttpRequest) -> bool:
    is_form = request.content_type == "multipart/form-data"
    return request.method == "POST" and is_form and request.path_info.startswith(PAGES)


def _may_upload(request: HttpRequest) -> bool:
    """Whether the session is that of an operator, or of a member who may write, in a tenant that is served."""
    tenant: Tenant | None = getattr(request, "tenant", None)
    user = request.user
    if tenant is None or not isinstance(user, User) or not user.is_active:
        return False
    if user.is_superuser:
        return True
    member = Membership.objects.filter(user=user, tenant=tenant).first()
    return tenant.is_active and member is not None and Scope.WRITE in INCLUDES[Role(member.role).scope]
