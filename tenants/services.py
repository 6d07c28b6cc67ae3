"""What an operator or a tenant's admin can ask for about tenants, people and tokens."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from common.errors import Conflict, Invalid, NotFound
from tenants import provisioning
from tenants.addressing import RESERVED_IDS, TENANT_ID
from tenants.models import ApiToken, Membership, OperatorAudit, Role, Scope, Tenant, TenantState, User
from tenants.scope import shared_scope


@dataclass(frozen=True)
class Provisioned:
    """A tenant that was just made. `admin_password` is None when the person was known before."""

    tenant: Tenant
    admin: User
    admin_password: str | None
    token: str


def provision_tenant(
    *, tenant_id: str, name: str, admin_email: str, actor: str, storage_alias: str | None = None
) -> Provisioned:
    """Make a tenant with its schema, its first admin and a first token: all of it or nothing.

    Raises:
        Invalid: the tenantId is not 3 to 40 of a-z, 0-9 and '-', or is reserved.
        Conflict: the tenantId is taken.
    """
    if not TENANT_ID.fullmatch(tenant_id) or tenant_id in RESERVED_IDS:
        raise Invalid(
            "A tenantId is 3 to 40 of a-z, 0-9 and '-', starts with a letter, does not end with '-', "
            f"and is none of {', '.join(sorted(RESERVED_IDS))}.",
            fields={"tenantId": tenant_id[:60]},
        )
    try:
        with shared_scope(), transaction.atomic():
            tenant = Tenant(tenant_id=tenant_id, name=name)
            if storage_alias:
                tenant.storage_alias = storage_alias
            tenant.save()
            provisioning.create_schema(tenant)
            admin, password = _person(admin_email)
            Membership.objects.create(tenant=tenant, user=admin, role=Role.ADMIN)
            _, secret = ApiToken.mint(name="first", tenant=tenant, scopes=[Scope.ADMIN], created_by=actor)
            OperatorAudit.objects.create(actor=actor, action="tenant.provision", tenant_id=tenant_id)
    except IntegrityError as error:
        raise Conflict(f"There is a tenant '{tenant_id}' already.", code="already_exists") from error
    return Provisioned(tenant, admin, password, secret)


def set_suspended(*, tenant: Tenant, suspended: bool, actor: str) -> None:
    """Stop or resume serving a tenant; its things stay as they are."""
    before, after = TenantState.ACTIVE, TenantState.SUSPENDED
    if not suspended:
        before, after = after, before
    if Tenant.objects.filter(pk=tenant.pk, state=before).update(state=after):
        action = "tenant.suspend" if suspended else "tenant.resume"
        OperatorAudit.objects.create(actor=actor, action=action, tenant_id=tenant.tenant_id)
    tenant.refresh_from_db()


def delete_tenant(*, tenant: Tenant, confirm: str, actor: str) -> None:
    """Remove a tenant for good: its schema, its files, its rows. May be repeated after a failure halfway.

    Raises:
        Invalid: `confirm` is not the tenantId.
    """
    if confirm != tenant.tenant_id:
        raise Invalid("Deleting is for good: repeat the tenantId to confirm.", fields={"confirm": confirm[:60]})
    with shared_scope():
        Tenant.objects.filter(pk=tenant.pk).update(state=TenantState.DELETING)
        OperatorAudit.objects.create(actor=actor, action="tenant.delete", tenant_id=tenant.tenant_id)
        provisioning.delete_files(tenant)
        provisioning.drop_schema(tenant)
        tenant.delete()


def issue_token(
    *, tenant: Tenant, name: str, scopes: Iterable[str], expires_in: timedelta | None, actor: str
) -> tuple[ApiToken, str]:
    """A token of one tenant and its secret, which is shown this once."""
    return ApiToken.mint(
        name=name, tenant=tenant, scopes=_scopes(scopes), expires_at=_expiry(expires_in), created_by=actor
    )


def issue_operator_token(
    *,
    name: str,
    scopes: Iterable[str],
    tenants: Iterable[Tenant],
    all_tenants: bool,
    expires_in: timedelta | None,
    actor: str,
) -> tuple[ApiToken, str]:
    """An operator's token for the tenants named, or for all, and its secret, which is shown this once."""
    listed = list(tenants)
    if bool(listed) == all_tenants:
        raise Invalid("An operator token lists tenants or is for all tenants: one of the two.")
    with transaction.atomic():
        token, secret = ApiToken.mint(
            name=name, scopes=_scopes(scopes), all_tenants=all_tenants, expires_at=_expiry(expires_in), created_by=actor
        )
        token.tenants.set(listed)
        OperatorAudit.objects.create(
            actor=actor,
            action="operator_token.issue",
            detail={"token": name, "tenants": [tenant.tenant_id for tenant in listed] or "all"},
        )
    return token, secret


def revoke_token(*, token: ApiToken) -> None:
    """End a token; again is no error."""
    ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now())


def add_member(*, tenant: Tenant, email: str, role: str) -> tuple[Membership, str | None]:
    """Give a person a role here, with a first password if the platform did not know them.

    Raises:
        Conflict: they are a member already.
    """
    with transaction.atomic():
        user, password = _person(email)
        membership, created = Membership.objects.get_or_create(tenant=tenant, user=user, defaults={"role": Role(role)})
        if not created:
            raise Conflict(f"{email} is a member already; change the role instead.", code="already_exists")
    return membership, password


def tenant_by_id(tenant_id: str) -> Tenant:
    """The tenant of this tenantId.

    Raises:
        NotFound: there is none.
    """
    tenant = Tenant.objects.filter(tenant_id=tenant_id).first()
    if tenant is None:
        raise NotFound(f"There is no tenant '{tenant_id}'.")
    return tenant


def _person(email: str) -> tuple[User, str | None]:
    """The user of this email address, made with a random password if new."""
    user = User.objects.filter(email=email.lower()).first()
    if user:
        return user, None
    password = secrets.token_urlsafe(15)
    return User.objects.create_user(email, password), password


def _scopes(scopes: Iterable[str]) -> list[str]:
    wanted = sorted(set(scopes))
    if unknown := [scope for scope in wanted if scope not in Scope.values]:
        raise Invalid(f"Scopes are {', '.join(Scope.values)}.", fields={"scopes": ", ".join(unknown)})
    if not wanted:
        raise Invalid("A token needs at least one scope.", fields={"scopes": ""})
    return wanted


def _expiry(expires_in: timedelta | None) -> datetime | None:
    return timezone.now() + expires_in if expires_in else None
