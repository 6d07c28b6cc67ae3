"""Who is asking: a token or a session, turned into one Caller."""

import base64
import binascii
import math
import time
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from rest_framework.authentication import BaseAuthentication, CSRFCheck
from rest_framework.request import Request

from common.errors import Denied, Unauthenticated
from tenants import uses
from tenants.models import ApiToken, Membership, Role, Scope, Tenant, User
from tenants.models.access import digest
from tenants.tables import Table

INCLUDES: dict[str, frozenset[str]] = {
    Scope.READ: frozenset([Scope.READ]),
    Scope.PREDICT: frozenset([Scope.PREDICT]),
    Scope.WRITE: frozenset([Scope.READ, Scope.PREDICT, Scope.WRITE]),
    Scope.ADMIN: frozenset(Scope.values),
}

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
    header = request.META.get("HTTP_AUTHORIZATION")
    caller = _by_session(request, tenant) if header is None else _by_token(header, tenant)
    if tenant is not None:
        _admit(caller, tenant, request)
    return caller


def unauthenticated(request: HttpRequest) -> Unauthenticated:
    """What is answered to who shows nothing valid for an address, whether there is such an address or not."""
    return Unauthenticated(NOT_VALID if "HTTP_AUTHORIZATION" in request.META else NOBODY)


def _admit(caller: Caller, tenant: Tenant, request: HttpRequest) -> None:
    """Keep everybody but an administering operator out of a suspended tenant, and show the tenant who came in."""
    if not tenant.is_active and not (caller.is_operator and caller.may(Scope.ADMIN)):
        raise Denied("This tenant is suspended; ask the operator of the platform.", code="tenant_suspended")
    if caller.is_operator:
        uses.note_operator(caller.name, caller.identity, tenant, f"{request.method} {request.path_info}")


def _by_token(header: str, tenant: Tenant | None) -> Caller:
    secret = _secret(header)
    known = _known(digest(secret)) if secret else None
    if known is None or not known.is_usable() or not known.opens(tenant):
        raise Unauthenticated(NOT_VALID)
    uses.note_token(known.token_id)
    return known.caller


@dataclass(frozen=True)
class KnownToken:
    """A token as it is remembered, usable or not, with the caller that it makes.

    ends_at: seconds since the epoch. tenant_id: None for an operator's, which lists tenants, or opens all (None).
    """

    token_id: UUID
    caller: Caller
    is_revoked: bool
    ends_at: float
    tenant_id: UUID | None
    listed: frozenset[UUID] | None

    @classmethod
    def of(cls, token: ApiToken) -> "KnownToken":
        """What is remembered of a token; for an operator's, by one query more."""
        scopes = frozenset[str]().union(*(INCLUDES[scope] for scope in token.scopes))
        prefix = "operator" if token.is_operator else "token"
        listed = token.tenants.order_by().values_list("pk", flat=True) if token.is_operator else ()
        return cls(
            token_id=token.pk,
            caller=Caller(name=f"{prefix}:{token.name}", scopes=scopes, is_operator=token.is_operator, token=token),
            is_revoked=token.revoked_at is not None,
            ends_at=token.expires_at.timestamp() if token.expires_at else math.inf,
            tenant_id=token.tenant_id,
            listed=None if token.all_tenants else frozenset(listed),
        )

    def is_usable(self) -> bool:
        """Whether it is neither revoked nor expired."""
        return not self.is_revoked and time.time() < self.ends_at

    def opens(self, tenant: Tenant | None) -> bool:
        """Whether it works below this tenant's address, or on the operator's surface."""
        if self.tenant_id is not None:
            return tenant is not None and self.tenant_id == tenant.pk
        return tenant is None or self.listed is None or tenant.pk in self.listed


TOKENS: Table[str, KnownToken] = Table(
    "token",
    tag_of=lambda _, known: str(known.token_id),
    weigh=lambda known: 1 + len(known.listed or ()) // 10,
    most=20_000,
    most_absent=10_000,
)


def _known(secret_sha256: str) -> KnownToken | None:
    def load() -> KnownToken | None:
        token = ApiToken.objects.filter(secret_sha256=secret_sha256).first()
        return KnownToken.of(token) if token else None

    return TOKENS.get(secret_sha256, load)


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
