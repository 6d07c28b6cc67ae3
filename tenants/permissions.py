"""What a caller may do with a DRF view."""

from typing import Any

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from common.errors import Denied
from tenants.authentication import Caller
from tenants.models import Scope


class HasScope(BasePermission):
    """Lets a caller in whose scopes include what the view declares in `scopes`, by method; reading is `read` by default.

    A view that writes and declares nothing is open to nobody.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        caller: Caller = request.auth
        declared = getattr(view, "scopes", {})
        scope = declared.get(request.method) or (Scope.READ if request.method in SAFE_METHODS else None)
        if scope is None:
            raise Denied("Nobody may do this here.")
        caller.require(scope)
        return True


class IsOperator(HasScope):
    """The same on the operator's surface: an operator's token or session only."""

    def has_permission(self, request: Request, view: Any) -> bool:
        caller: Caller = request.auth
        if not caller.is_operator:
            raise Denied("Only an operator may do this.", code="operator_required")
        return super().has_permission(request, view)
