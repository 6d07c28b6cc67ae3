"""What callers, members, tokens, settings and tenants look like over HTTP, and what may be said about them."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.http import QueryDict
from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from tenants.durations import parse_duration
from tenants.journal.models import AuditEvent
from tenants.models import ApiToken, Lane, Membership, Role, Scope, Tenant, TenantState

NAME = r"^(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,100}\Z"
NAME_SCHEMA = {"type": "string", "pattern": NAME.replace(r"\Z", "$")}
ID = r"^[a-z][a-z0-9-]{1,38}[a-z0-9]\Z"
NOT_AN_ID = "A tenantId is 3 to 40 of a-z, 0-9 and '-', starts with a letter and does not end with '-'."
LENGTH_OF_TIME = r"^[1-9][0-9]{0,5}[mhdw]\Z"
LARGEST_BIGINT, LARGEST_INT = 2**63 - 1, 2**31 - 1


class Strict(serializers.Serializer[Any]):
    """A body that is taken at its word.

    A field that may not be there is an error, rather than a change that silently does not happen; so is a number where
    a text belongs, or a text where a number does, which DRF would convert.

    also: what a schema says of the whole body beside its fields, for the OpenAPI document; `validate` checks it.
    """

    also: ClassVar[Mapping[str, Any]] = {}

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            self._refuse({str(name)[:100]: self._unknown(str(name)) for name in data})
            if not isinstance(data, QueryDict):  # a form has nothing but texts
                self._refuse({name: _wrong_type(field, data.get(name)) for name, field in self.fields.items()})
        return super().to_internal_value(data)

    def _unknown(self, name: str) -> str:
        if name not in self.fields:
            return f"There is no such field; there are {', '.join(self.fields)}."
        return "This cannot be set here." if self.fields[name].read_only else ""

    def _refuse(self, faults: Mapping[str, str]) -> None:
        if found := {name: [fault] for name, fault in sorted(faults.items()) if fault}:
            raise serializers.ValidationError(found)


def _wrong_type(field: "serializers.Field[Any, Any, Any, Any]", value: Any) -> str:
    if isinstance(field, serializers.CharField) and not isinstance(value, str | None):
        return "This is not a text."
    if isinstance(field, serializers.IntegerField | serializers.FloatField) and isinstance(value, str | bool):
        return "This is not a number."
    return ""


class PatternField(serializers.RegexField):
    """A text that is all of a pattern, blanks at its ends included."""

    def __init__(self, pattern: str, **options: Any) -> None:
        super().__init__(pattern, trim_whitespace=False, **options)


@extend_schema_field(NAME_SCHEMA)
class NameField(serializers.CharField):
    """What should be a name; the service that takes it checks it, with all else that is wrong."""

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)


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

    also = {"not": {"required": ["expires_in", "expires_at"]}}

    name = serializers.CharField(max_length=100)
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=Scope.choices), min_length=1, max_length=len(Scope)
    )
    expires_in = PatternField(LENGTH_OF_TIME, required=False, help_text="A length of time such as 90d.")
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


LONGEST_RUN_S = 5 * 3600  # a worker's own limit is above it


class QuotasSerializer(Strict):
    """What a tenant may use."""

    max_artifact_bytes = serializers.IntegerField(min_value=1, max_value=LARGEST_BIGINT, required=False)
    max_storage_bytes = serializers.IntegerField(min_value=1, max_value=LARGEST_BIGINT, required=False)
    max_dataset_bytes = serializers.IntegerField(min_value=0, max_value=LARGEST_BIGINT, required=False)
    max_open_runs = serializers.IntegerField(min_value=0, max_value=LARGEST_INT, required=False)
    max_running_runs = serializers.IntegerField(min_value=1, max_value=LARGEST_INT, required=False)
    max_run_seconds = serializers.IntegerField(min_value=1, max_value=LONGEST_RUN_S, required=False)
    max_run_cpu_seconds = serializers.IntegerField(min_value=1, max_value=LARGEST_INT, required=False)
    max_run_memory_bytes = serializers.IntegerField(min_value=1 << 20, max_value=LARGEST_BIGINT, required=False)


class SettingsSerializer(Strict):
    """What a tenant's admin says of the tenant; what only the operator changes is read-only."""

    tenantId = serializers.CharField(source="tenant_id", read_only=True)
    state = serializers.ChoiceField(choices=TenantState.choices, read_only=True)
    name = serializers.CharField(max_length=200, required=False)
    default_model = PatternField(
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

    tenantId = PatternField(ID, source="tenant_id", error_messages={"invalid": NOT_AN_ID})
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
