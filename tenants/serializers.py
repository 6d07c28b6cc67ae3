"""What callers, members, tokens, settings and tenants look like over HTTP, and what may be said about them."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from rest_framework import serializers

from tenants.durations import parse_duration
from tenants.journal.models import AuditEvent
from tenants.models import ApiToken, Lane, Membership, Role, Scope, Tenant, TenantState

NAME = r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}$"
LARGEST_BIGINT, LARGEST_INT = 2**63 - 1, 2**31 - 1


class Strict(serializers.Serializer[Any]):
    """A body in which a field that may not be there is an error, rather than a change that silently does not happen."""

    def to_internal_value(self, data: Any) -> Any:
        values = super().to_internal_value(data)
        known = {name for name, field in self.fields.items() if not field.read_only}
        if unknown := [str(name) for name in data if name not in known]:
            raise serializers.ValidationError({name: ["This cannot be set here."] for name in sorted(unknown)})
        return values


def checked(kind: type[serializers.Serializer[Any]], data: Any) -> dict[str, Any]:
    """The values of a body that is right by this serializer."""
    serializer = kind(data=data)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


class WhoAmISerializer(serializers.Serializer[Any]):
    """The caller, and the tenant of the address (null on the operator's surface)."""

    name = serializers.CharField()
    kind = serializers.ChoiceField(choices=["token", "user", "operator"])
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=Scope.choices))
    tenantId = serializers.CharField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)


class MemberSerializer(serializers.ModelSerializer[Membership]):
    """A person with a role in the tenant."""

    email = serializers.EmailField(source="user.email")
    name = serializers.CharField(source="user.name")

    class Meta:
        model = Membership
        fields = ("id", "email", "name", "role", "created_at")


class NewMemberSerializer(MemberSerializer):
    """A member who was just added; `password` is shown this once, and null if the person has one."""

    password = serializers.CharField(allow_null=True)

    class Meta(MemberSerializer.Meta):
        fields = (*MemberSerializer.Meta.fields, "password")  # type: ignore[assignment]


class MemberRequestSerializer(Strict):
    """Whom to add, as what."""

    email = serializers.EmailField(max_length=254)
    role = serializers.ChoiceField(choices=Role.choices, default=Role.VIEWER)


class RoleSerializer(Strict):
    """What a member becomes."""

    role = serializers.ChoiceField(choices=Role.choices)


class ResetLinkSerializer(serializers.Serializer[Any]):
    """A link by which a member sets a new password, once."""

    link = serializers.URLField()
    expires_at = serializers.DateTimeField()


class TokenSerializer(serializers.ModelSerializer[ApiToken]):
    """A token, less its secret; `hint` is how the secret begins."""

    id = serializers.UUIDField(source="pk", read_only=True)

    class Meta:
        model = ApiToken
        fields = (
            "id",
            "name",
            "hint",
            "scopes",
            "is_usable",
            "created_by",
            "created_at",
            "expires_at",
            "revoked_at",
            "last_used_at",
        )


class NewTokenSerializer(TokenSerializer):
    """A token that was just issued; `token` is the secret, shown this once and kept nowhere."""

    token = serializers.CharField()

    class Meta(TokenSerializer.Meta):
        fields = (*TokenSerializer.Meta.fields, "token")  # type: ignore[assignment]


class TokenRequestSerializer(Strict):
    """A token to issue; without `expires_in` and `expires_at` it does not expire."""

    name = serializers.CharField(max_length=100)
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=Scope.choices), allow_empty=False, max_length=len(Scope)
    )
    expires_in = serializers.CharField(max_length=10, required=False, help_text="A length of time such as 90d.")
    expires_at = serializers.DateTimeField(required=False)

    def validate_expires_at(self, value: datetime) -> datetime:
        if value <= timezone.now():
            raise serializers.ValidationError("This moment has passed.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Replace the two ways of saying when it expires by `lifetime`, which is None for never."""
        in_words, moment = attrs.pop("expires_in", None), attrs.pop("expires_at", None)
        if in_words and moment:
            raise serializers.ValidationError({"expires_in": ["Give expires_in or expires_at, not both."]})
        lifetime: timedelta | None = moment - timezone.now() if moment else None
        return attrs | {"lifetime": parse_duration(in_words) if in_words else lifetime}


class QuotasSerializer(Strict):
    """What a tenant may use."""

    max_artifact_bytes = serializers.IntegerField(min_value=1, max_value=LARGEST_BIGINT, required=False)
    max_storage_bytes = serializers.IntegerField(min_value=1, max_value=LARGEST_BIGINT, required=False)
    max_open_runs = serializers.IntegerField(min_value=0, max_value=LARGEST_INT, required=False)


class SettingsSerializer(Strict):
    """What a tenant's admin says of the tenant; what only the operator changes is read-only."""

    tenantId = serializers.CharField(source="tenant_id", read_only=True)
    state = serializers.ChoiceField(choices=TenantState.choices, read_only=True)
    name = serializers.CharField(max_length=200, required=False)
    default_model = serializers.RegexField(
        NAME, required=False, allow_blank=True, help_text="Serves `predict` without a model's name. May be named ahead."
    )
    lane = serializers.ChoiceField(
        choices=Lane.choices, required=False, allow_blank=True, help_text="Empty for the platform's own setting."
    )
    storage = serializers.CharField(source="storage_alias", read_only=True)
    quotas = QuotasSerializer(source="*", read_only=True)


class AuditEventSerializer(serializers.ModelSerializer[AuditEvent]):
    """Who did what, and when."""

    class Meta:
        model = AuditEvent
        fields = ("id", "at", "actor", "action", "target", "detail", "request_id")


class TenantSerializer(serializers.Serializer[Tenant]):
    """A tenant as an operator sees it."""

    tenantId = serializers.CharField(source="tenant_id")
    uuid = serializers.UUIDField()
    name = serializers.CharField()
    state = serializers.ChoiceField(choices=TenantState.choices)
    storage = serializers.CharField(source="storage_alias")
    quotas = QuotasSerializer(source="*")
    domains = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()

    def get_domains(self, tenant: Tenant) -> list[str]:
        return sorted(domain.domain for domain in tenant.domains.all())


class TenantRequestSerializer(Strict):
    """A tenant to make, and its first admin."""

    tenantId = serializers.CharField(source="tenant_id", max_length=60)
    name = serializers.CharField(max_length=200, required=False)
    admin = serializers.EmailField(source="admin_email", max_length=254)
    storage = serializers.CharField(source="storage_alias", max_length=40, required=False)


class AdminSerializer(serializers.Serializer[Any]):
    """A tenant's first admin; `password` is null if the person has one already."""

    email = serializers.EmailField()
    password = serializers.CharField(allow_null=True)


class ProvisionedSerializer(serializers.Serializer[Any]):
    """A tenant that was just made; the secrets are shown this once."""

    tenantId = serializers.CharField()
    admin = AdminSerializer()
    token = serializers.CharField()


class TenantChangeSerializer(Strict):
    """What an operator changes of a tenant; `state` suspends or resumes it."""

    name = serializers.CharField(max_length=200, required=False)
    state = serializers.ChoiceField(choices=[TenantState.ACTIVE.value, TenantState.SUSPENDED.value], required=False)
    storage = serializers.CharField(source="storage_alias", max_length=40, required=False)
    quotas = QuotasSerializer(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        quotas: Mapping[str, Any] = attrs.pop("quotas", {})
        return attrs | dict(quotas)
