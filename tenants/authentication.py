"""Who is asking: a token or a session, turned into one Caller."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any, cast

from django.contrib.auth.models import AnonymousUser
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, CSRFCheck
from rest_framework.request import Request

from common.errors import Denied, Unauthenticated
from tenants import audit
from tenants.models import ApiToken, Membership, Role, Scope, Tenant, User

INCLUDES: dict[str, frozenset[str]] = {
    Scope.READ: frozenset([Scope.READ]),
    Scope.PREDICT: frozenset([Scope.PREDICT]),
    Scope.WRITE: frozenset([Scope.READ, Scope.PREDICT, Scope.WRITE]),
    Scope.ADMIN: frozenset(Scope.values),
}
TOUCH_AFTER_S = 60

# An unknown tenant is answered with the same words, so nothing here may tell that a tenant is there.
NOBODY = "Send a token (Authorization: Bearer …), or log in as a member."
NOT_VALID = "This token is not valid here: it is unknown, revoked, expired or for another address."


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

    @property
    def identity(self) -> str:
        """Who they are whatever they are called: two tokens may have one name."""
        return f"token:{self.token.pk}" if self.token else f"user:{self.user.pk if self.user else ''}"

    @property
    def reaches_all(self) -> bool:
        """Whether they are an operator of the whole platform rather than of some tenants."""
        return self.is_operator and (self.token is None or self.token.all_tenants)

    def tenants(self) -> QuerySet[Tenant]:
        """The tenants that they work for as an operator; none for anybody else."""
        if self.reaches_all:
            return Tenant.objects.all()
        return Tenant.objects.filter(operator_tokens=self.token) if self.is_operator else Tenant.objects.none()

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
    if tenant is not None:
        _admit(caller, tenant, request)
    return caller


def unauthenticated(request: HttpRequest) -> Unauthenticated:
    """What is answered to who shows nothing valid for an address, whether there is such an address or not."""
    return Unauthenticated(NOT_VALID if "Authorization" in request.headers else NOBODY)


def _admit(caller: Caller, tenant: Tenant, request: HttpRequest) -> None:
    """Keep everybody but an administering operator out of a suspended tenant, and show the tenant who came in."""
    if not tenant.is_active and not (caller.is_operator and caller.may(Scope.ADMIN)):
        raise Denied("This tenant is suspended; ask the operator of the platform.", code="tenant_suspended")
    if caller.is_operator:
        audit.note_operator(caller.name, caller.identity, tenant, f"{request.method} {request.path_info}")


def _by_token(request: HttpRequest, tenant: Tenant | None) -> Caller:
    secret = _secret(request.headers["Authorization"])
    token = ApiToken.objects.usable().by_secret(secret).first() if secret else None
    if token is None or (not token.opens(tenant) if tenant is not None else not token.is_operator):
        raise Unauthenticated(NOT_VALID)
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
        raise Unauthenticated(NOBODY)
    _enforce_csrf(request)
    if user.is_superuser:
        return Caller(f"operator:{user.email}", INCLUDES[Scope.ADMIN], is_operator=True, user=user)
    membership = Membership.objects.filter(user=user, tenant=tenant).first() if tenant else None
    if membership is None:
        raise Unauthenticated(NOBODY)
    return Caller(user.email, INCLUDES[Role(membership.role).scope], user=user)


def _nothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def _enforce_csrf(request: HttpRequest) -> None:
    check = CSRFCheck(_nothing)
    check.process_request(request)
    if reason := check.process_view(request, _nothing, (), {}):
        raise Denied(f"This session request lacks its CSRF token: {reason}.", code="csrf_failed")


def caller_of(request: Request) -> Caller:
    """The caller of a request to a DRF view."""
    return cast(Caller, request.auth)


class CallerAuthentication(BaseAuthentication):
    """`authenticate` for DRF views: `request.auth` is the Caller."""

    def authenticate(self, request: Request) -> tuple[Any, Caller]:
        caller = authenticate(request._request)
        return caller.user or AnonymousUser(), caller

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="tenantry"'
