"""What a caller may do with a DRF view."""

from typing import Any

from rest_framework.exceptions import MethodNotAllowed
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from common.errors import Denied
from tenants.authentication import caller_of
from tenants.models import Scope


def require_handler(request: Request, view: Any) -> None:
    """Go on only where there is something that a scope could open.

    Raises:
        MethodNotAllowed: nobody may, since the view knows no such method.
    """
    method = str(request.method)
    if method.lower() not in view.http_method_names or not hasattr(view, method.lower()):
        raise MethodNotAllowed(method)


class HasScope(BasePermission):
    """Lets a caller in whose scopes include what the view declares in `scopes`, by method.

    Reading is `read` by default. A view that writes and declares nothing is open to nobody.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        require_handler(request, view)
        caller = caller_of(request)
        declared = getattr(view, "scopes", {})
        method = "GET" if request.method == "HEAD" else request.method
        scope = declared.get(method) or (Scope.READ if method in SAFE_METHODS else None)
        if scope is None:
            raise Denied("Nobody may do this here.")
        caller.require(scope)
        return True


class IsKnown(BasePermission):
    """Lets in whoever has shown who they are, whatever their scopes; for views that only read."""

    def has_permission(self, request: Request, view: Any) -> bool:
        require_handler(request, view)
        return request.auth is not None and request.method in SAFE_METHODS


class IsOperator(HasScope):
    """The same on the operator's surface: an operator's token or session only."""

    def has_permission(self, request: Request, view: Any) -> bool:
        require_handler(request, view)
        caller = caller_of(request)
        if not caller.is_operator:
            raise Denied("Only an operator may do this.", code="operator_required")
        return super().has_permission(request, view)
