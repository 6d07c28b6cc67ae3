"""What an operator or a tenant's admin can ask for about tenants, people and tokens."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.utils import timezone

from common.errors import Conflict, Denied, Invalid, NotFound
from tenants import audit, passwords, provisioning
from tenants.addressing import RESERVED_IDS, TENANT_ID
from tenants.models import ApiToken, Domain, Membership, OperatorAudit, Role, Scope, Tenant, TenantState, User
from tenants.scope import shared_scope, tenant_scope

LONGEST_NAME = 200


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
        Invalid: the tenantId is not 3 to 40 of a-z, 0-9 and '-', or is reserved; or another argument is not right.
        Conflict: the tenantId is taken.
        Unavailable: the database is behind this code.
    """
    if not TENANT_ID.fullmatch(tenant_id) or tenant_id in RESERVED_IDS:
        raise Invalid(
            "A tenantId is 3 to 40 of a-z, 0-9 and '-', starts with a letter, does not end with '-', "
            f"and is none of {', '.join(sorted(RESERVED_IDS))}.",
            fields={"tenantId": tenant_id[:60]},
        )
    email = _checked_email(admin_email)
    fields: dict[str, Any] = {"name": _checked_name(name)}
    if storage_alias:
        fields["storage_alias"] = _checked_storage(storage_alias)
    if Tenant.objects.filter(tenant_id=tenant_id).exists():
        raise _taken(tenant_id)
    try:
        with shared_scope(), transaction.atomic():
            tenant = Tenant.objects.create(tenant_id=tenant_id, **fields)
            provisioning.create_schema(tenant)
            admin, password = _person(email)
            Membership.objects.create(tenant=tenant, user=admin, role=Role.ADMIN)
            _, secret = ApiToken.mint(name="first", tenant=tenant, scopes=[Scope.ADMIN], created_by=actor)
            _record_by_operator(tenant, actor, "tenant.provision")
    except IntegrityError as error:
        raise _taken(tenant_id) from error
    return Provisioned(tenant, admin, password, secret)


def set_suspended(*, tenant: Tenant, suspended: bool, actor: str) -> None:
    """Stop or resume serving a tenant; its things stay as they are."""
    before, after = TenantState.ACTIVE, TenantState.SUSPENDED
    if not suspended:
        before, after = after, before
    with transaction.atomic():
        if Tenant.objects.filter(pk=tenant.pk, state=before).update(state=after):
            _record_by_operator(tenant, actor, "tenant.suspend" if suspended else "tenant.resume")
    tenant.refresh_from_db()


def update_tenant(*, tenant: Tenant, changes: Mapping[str, Any], actor: str) -> None:
    """Change what an operator says of a tenant: `name`, `storage_alias`, and its quotas by their columns' names.

    Files stay in the storage that they were put into; what comes later goes to the new one.

    Raises:
        Conflict: it is being deleted.
    """
    if tenant.state == TenantState.DELETING:
        raise Conflict(f"{tenant.tenant_id} is being deleted.", code="tenant_deleting")
    checked = dict(changes)
    if "name" in checked:
        checked["name"] = _checked_name(checked["name"])
    if "storage_alias" in checked:
        checked["storage_alias"] = _checked_storage(checked["storage_alias"])
    with transaction.atomic():
        Tenant.objects.filter(pk=tenant.pk).update(**checked)
        _record_by_operator(tenant, actor, "tenant.update", **checked)
    tenant.refresh_from_db()


def update_settings(*, tenant: Tenant, changes: Mapping[str, Any], actor: str) -> None:
    """Change what a tenant's admin says of it: `name`, `default_model`, `lane`."""
    with transaction.atomic(), tenant_scope(tenant):
        Tenant.objects.filter(pk=tenant.pk).update(**changes)
        audit.record(actor=actor, action="settings.update", **changes)
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
        if provisioning.has_schema(tenant):
            with tenant_scope(tenant):
                provisioning.delete_files(tenant)
        provisioning.drop_schema(tenant)
        tenant.delete()


def add_domain(*, tenant: Tenant, domain: str, actor: str) -> Domain:
    """Make a host name the tenant's own.

    Raises:
        Conflict: it belongs to a tenant already.
    """
    host = domain.strip().lower().rstrip(".")
    if not host or len(host) > 253 or not all(part.replace("-", "").isalnum() for part in host.split(".")):
        raise Invalid("A domain is a host name such as models.example.com, without a port.", fields={"domain": host})
    try:
        with shared_scope(), transaction.atomic():
            made = Domain.objects.create(domain=host, tenant=tenant, is_primary=not tenant.domains.exists())
            _record_by_operator(tenant, actor, "domain.add", domain=host)
    except IntegrityError as error:
        raise Conflict(f"{host} belongs to a tenant already.", code="already_exists") from error
    return made


def issue_token(
    *, tenant: Tenant, name: str, scopes: Iterable[str], expires_in: timedelta | None, actor: str
) -> tuple[ApiToken, str]:
    """A token of one tenant and its secret, which is shown this once."""
    fields = {"name": name, "scopes": _scopes(scopes), "expires_at": _expiry(expires_in)}
    with transaction.atomic(), tenant_scope(tenant):
        token, secret = ApiToken.mint(tenant=tenant, created_by=actor, **fields)
        audit.record(actor=actor, action="token.issue", target=name, id=str(token.pk), scopes=token.scopes)
    return token, secret


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


def revoke_token(*, token: ApiToken, actor: str) -> None:
    """End a token; again is no error."""
    with transaction.atomic():
        if not ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now()):
            return
        if token.tenant is None:
            OperatorAudit.objects.create(actor=actor, action="operator_token.revoke", detail={"token": token.name})
            return
        with tenant_scope(token.tenant):
            audit.record(actor=actor, action="token.revoke", target=token.name, id=str(token.pk))


def add_member(
    *, tenant: Tenant, email: str, role: str, actor: str, by_operator: bool = False
) -> tuple[Membership, str | None]:
    """Give a person a role here, with a first password unless the platform knows them already.

    Only an operator brings in somebody who is a member elsewhere: nobody has checked whose mailbox an account's address
    is, so a tenant's admin could let in a stranger by the name of a colleague. An account that is a member nowhere gets
    a new password, for the same reason.

    Raises:
        Conflict: they are a member already, or (`known_elsewhere`) have an account that only an operator may bring in.
    """
    email = _checked_email(email)
    with transaction.atomic(), tenant_scope(tenant):
        user, password = _person(email)
        if Membership.objects.filter(tenant=tenant, user=user).exists():
            raise Conflict(f"{email} is a member already; change the role instead.", code="already_exists")
        if password is None and not by_operator:
            raise Conflict(
                f"{email} has an account of this platform already; ask the operator to add it.", code="known_elsewhere"
            )
        membership = Membership.objects.create(tenant=tenant, user=user, role=Role(role))
        audit.record(actor=actor, action="member.add", target=email, role=membership.role)
    return membership, password


def change_role(*, membership: Membership, role: str, actor: str) -> Membership:
    """Give a member another role.

    Raises:
        Conflict: nobody would be left who administers the tenant.
    """
    with transaction.atomic(), tenant_scope(membership.tenant):
        member = _locked(membership)
        if role != Role.ADMIN:
            _keep_an_admin(member)
        before, member.role = member.role, Role(role)
        member.save(update_fields=["role"])
        audit.record(actor=actor, action="member.role", target=member.user.email, before=before, after=role)
    return member


def remove_member(*, membership: Membership, actor: str) -> None:
    """Take a person's role here away; the person stays known.

    Raises:
        Conflict: nobody would be left who administers the tenant.
    """
    with transaction.atomic(), tenant_scope(membership.tenant):
        member = _locked(membership)
        _keep_an_admin(member)
        member.delete()
        audit.record(actor=actor, action="member.remove", target=member.user.email)


def reset_path(*, membership: Membership, actor: str, by_operator: bool = False) -> str:
    """The path below the tenant's address of a link by which a member sets a new password: once, within three days.

    Raises:
        Denied: the account opens more than this tenant, so that only an operator may hand it over.
    """
    user = membership.user
    elsewhere = user.is_staff or user.is_superuser or user.memberships.exclude(tenant=membership.tenant).exists()
    if elsewhere and not by_operator:
        raise Denied(f"{user.email} is not of this tenant alone; ask the operator for a link.", code="known_elsewhere")
    with tenant_scope(membership.tenant):
        audit.record(actor=actor, action="member.reset_link", target=user.email)
    return passwords.reset_path(user)


def tenant_by_id(tenant_id: str, *, or_deleting: bool = False) -> Tenant:
    """The tenant of this tenantId; one whose deletion stopped halfway only if asked for.

    Raises:
        NotFound: there is none.
    """
    tenant = Tenant.objects.filter(tenant_id=tenant_id).first()
    if tenant is None or (tenant.state == TenantState.DELETING and not or_deleting):
        raise NotFound(f"There is no tenant '{tenant_id}'.")
    return tenant


def _record_by_operator(tenant: Tenant, actor: str, action: str, **detail: Any) -> None:
    """Note what an operator did, in the operators' audit and where the tenant sees it."""
    OperatorAudit.objects.create(actor=actor, action=action, tenant_id=tenant.tenant_id, detail=detail)
    with tenant_scope(tenant):
        audit.record(actor=actor, action=action, target=tenant.tenant_id, **detail)


def _person(email: str) -> tuple[User, str | None]:
    """The user of this email address; with a new random password if new, or if nothing depends on the old one.

    The row stays locked until the transaction ends: who comes second finds the first one's membership, and cannot set
    a password for an account that opens another tenant by then.
    """
    user = User.objects.select_for_update().filter(email=email).first()
    if user is None:
        return _new_person(email)
    if user.is_staff or user.is_superuser or not user.is_active or user.memberships.exists():
        return user, None
    password = user.set_random_password()
    user.save(update_fields=["password"])
    return user, password


def _new_person(email: str) -> tuple[User, str]:
    try:
        with transaction.atomic():
            return User.objects.create_with_random_password(email)
    except IntegrityError as error:
        raise Conflict(f"{email} was added by somebody else just now; try again.", retry_after_s=1) from error


def _locked(membership: Membership) -> Membership:
    """The membership as it is now, with every other change of the tenant's admins waiting for this transaction.

    Raises:
        NotFound: it is gone.
    """
    Tenant.objects.select_for_update().get(pk=membership.tenant_id)
    found = Membership.objects.select_related("user", "tenant").filter(pk=membership.pk).first()
    if found is None:
        raise NotFound("This person is not a member any more.")
    return found


def _keep_an_admin(member: Membership) -> None:
    others = Membership.objects.filter(tenant=member.tenant, role=Role.ADMIN, user__is_active=True)
    if member.role == Role.ADMIN and not others.exclude(pk=member.pk).exists():
        raise Conflict("This is the last admin; make somebody else an admin first.", code="last_admin")


def _taken(tenant_id: str) -> Conflict:
    return Conflict(f"There is a tenant '{tenant_id}' already.", code="already_exists")


def _checked_email(email: str) -> str:
    try:
        validate_email(email)
    except ValidationError as error:
        raise Invalid(f"'{email[:60]}' is not an email address.", fields={"email": email[:60]}) from error
    return email.lower()


def _checked_name(name: str) -> str:
    if not name.strip() or len(name) > LONGEST_NAME or "\0" in name:
        raise Invalid(f"A tenant's name is 1 to {LONGEST_NAME} characters.", fields={"name": name[:60]})
    return name.strip()


def _checked_storage(alias: str) -> str:
    known = provisioning.storage_aliases()
    if alias not in known:
        raise Invalid(f"Storages here are {', '.join(known)}.", fields={"storage": alias[:60]})
    return alias


def _scopes(scopes: Iterable[str]) -> list[str]:
    wanted = sorted(set(scopes))
    if unknown := [scope for scope in wanted if scope not in Scope.values]:
        raise Invalid(f"Scopes are {', '.join(Scope.values)}.", fields={"scopes": ", ".join(unknown)})
    if not wanted:
        raise Invalid("A token needs at least one scope.", fields={"scopes": ""})
    return wanted


def _expiry(expires_in: timedelta | None) -> datetime | None:
    return timezone.now() + expires_in if expires_in else None
