"""Who is asking: a token or a session, turned into one Caller."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, CSRFCheck
from rest_framework.request import Request

from common.errors import Denied, Unauthenticated
from tenants.models import ApiToken, Membership, Role, Scope, Tenant, User

INCLUDES: dict[str, frozenset[str]] = {
    Scope.READ: frozenset([Scope.READ]),
    Scope.PREDICT: frozenset([Scope.PREDICT]),
    Scope.WRITE: frozenset([Scope.READ, Scope.PREDICT, Scope.WRITE]),
    Scope.ADMIN: frozenset(Scope.values),
}
TOUCH_AFTER_S = 60


@dataclass(frozen=True)
class Caller:
    """Somebody who has shown who they are.

    name: as the audit trail names them: an email address, `token:NAME` or `operator:NAME`.
    scopes: everything they may do here, included scopes spelled out.
    """

    name: str
    scopes: frozenset[str]
    is_operator: bool = False
    user: User | None = None
    token: ApiToken | None = None

    def may(self, scope: str) -> bool:
        """Whether this scope is among theirs."""
        return scope in self.scopes

    def require(self, scope: str) -> None:
        """Go on only with this scope.

        Raises:
            Denied: they lack it.
        """
        if not self.may(scope):
            raise Denied(
                f"This needs the scope '{scope}', which {self.name} does not have here.", code="scope_required"
            )


def authenticate(request: HttpRequest) -> Caller:
    """The caller of this request, in the tenant of its address or on the operator's surface.

    A session counts for unsafe methods only with its CSRF token.

    Raises:
        Unauthenticated: no token and no session, or one that is unknown, revoked, expired or another tenant's.
        Denied: the tenant is suspended.
    """
    tenant: Tenant | None = getattr(request, "tenant", None)
    caller = _by_token(request, tenant) if "Authorization" in request.headers else _by_session(request, tenant)
    if tenant is not None and not tenant.is_active and not caller.is_operator:
        raise Denied("This tenant is suspended; ask the operator of the platform.", code="tenant_suspended")
    return caller


def _by_token(request: HttpRequest, tenant: Tenant | None) -> Caller:
    secret = _secret(request.headers["Authorization"])
    token = ApiToken.objects.usable().by_secret(secret).first() if secret else None
    if token is None or (not token.opens(tenant) if tenant is not None else not token.is_operator):
        raise Unauthenticated("This token is not valid here: it is unknown, revoked, expired or for another address.")
    _touch(token)
    scopes = frozenset[str]().union(*(INCLUDES[scope] for scope in token.scopes))
    prefix = "operator" if token.is_operator else "token"
    return Caller(name=f"{prefix}:{token.name}", scopes=scopes, is_operator=token.is_operator, token=token)


def _secret(header: str) -> str | None:
    """The token in a Bearer header, or the password in a Basic one."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


def _touch(token: ApiToken) -> None:
    """Note that the token was used, at most once a minute: a write a request would be felt."""
    now = timezone.now()
    if token.last_used_at is None or (now - token.last_used_at).total_seconds() > TOUCH_AFTER_S:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)


def _by_session(request: HttpRequest, tenant: Tenant | None) -> Caller:
    user = request.user
    if not isinstance(user, User) or not user.is_active:
        raise Unauthenticated("Send a token (Authorization: Bearer …) or log in.")
    _enforce_csrf(request)
    if user.is_superuser:
        return Caller(f"operator:{user.email}", INCLUDES[Scope.ADMIN], is_operator=True, user=user)
    membership = Membership.objects.filter(user=user, tenant=tenant).first() if tenant else None
    if membership is None:
        raise Unauthenticated("You are logged in, but not a member here.")
    return Caller(user.email, INCLUDES[Role(membership.role).scope], user=user)


def _enforce_csrf(request: HttpRequest) -> None:
    check = CSRFCheck(lambda _: None)  # type: ignore[arg-type,return-value]
    check.process_request(request)
    if reason := check.process_view(request, lambda _: None, (), {}):  # type: ignore[arg-type,return-value]
        raise Denied(f"This session request lacks its CSRF token: {reason}.", code="csrf_failed")


class CallerAuthentication(BaseAuthentication):
    """`authenticate` for DRF views: `request.auth` is the Caller."""

    def authenticate(self, request: Request) -> tuple[Any, Caller]:
        caller = authenticate(request._request)
        return caller.user or AnonymousUser(), caller

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="tenantry"'
