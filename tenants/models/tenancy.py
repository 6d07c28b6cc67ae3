"""Tenants and their addresses."""

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django_tenants.models import DomainMixin, TenantMixin

from tenants.addressing import TENANT_ID


class TenantState(models.TextChoices):
    """Where a tenant is in its life."""

    ACTIVE = "active", "Active"
    SUSPENDED = "suspended", "Suspended"
    DELETING = "deleting", "Being deleted"


class Lane(models.TextChoices):
    """Which way a prediction takes: through this machine's pool, or through a queue to any worker."""

    DIRECT = "direct", "Direct"
    QUEUE = "queue", "Queue"


def default_storage_alias() -> str:
    """The storage that a new tenant's files go to."""
    return str(settings.TENANT_STORAGE)


class Tenant(TenantMixin):  # type: ignore[misc]
    """A customer of the platform: an address, a schema and a storage of its own.

    active <──> suspended ──> deleting ──> (gone)
       └────────────────────────┘

    uuid: names the tenant in messages, cache keys and pool keys; never reused, unlike its tenantId.
    schema_name: derived from the uuid, never taken from outside.
    lane: of its predictions; empty for the platform's own setting.
    """

    auto_create_schema = False  # `tenants.provisioning` does, from cached DDL
    auto_drop_schema = False

    schema_name: str  # TenantMixin's field
    objects: ClassVar[models.Manager["Tenant"]] = models.Manager()

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant_id = models.CharField(
        "tenant id",
        max_length=40,
        unique=True,
        validators=[RegexValidator(rf"^{TENANT_ID.pattern}$", "A tenant id is 3 to 40 of a-z, 0-9 and '-'.")],
    )
    name = models.CharField(max_length=200)
    state = models.CharField(max_length=12, choices=TenantState, default=TenantState.ACTIVE)
    storage_alias = models.CharField("storage", max_length=40, default=default_storage_alias)
    default_model = models.CharField(max_length=100, blank=True)
    lane = models.CharField(max_length=10, choices=Lane, blank=True)
    max_artifact_bytes = models.PositiveBigIntegerField(default=5 << 30)
    max_storage_bytes = models.PositiveBigIntegerField(default=100 << 30)
    max_open_runs = models.PositiveIntegerField(default=50)
    max_running_runs = models.PositiveIntegerField(default=4)
    max_run_seconds = models.PositiveIntegerField(default=3600)
    max_run_cpu_seconds = models.PositiveIntegerField(default=2 * 3600)
    max_run_memory_bytes = models.PositiveBigIntegerField(default=4 << 30)
    max_dataset_bytes = models.PositiveBigIntegerField(default=20 << 30)
    fingerprint = models.CharField(max_length=64, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("tenant_id",)

    def __str__(self) -> str:
        return self.tenant_id

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.schema_name = self.schema_name or f"t_{self.uuid.hex}"
        super().save(*args, **kwargs)

    @property
    def is_active(self) -> bool:
        """Whether requests and jobs of this tenant are served."""
        return self.state == TenantState.ACTIVE

    @property
    def base_path(self) -> str:
        """The path of its address on the main host."""
        return f"/t/{self.tenant_id}"


class Domain(DomainMixin):  # type: ignore[misc]
    """A host name that belongs to one tenant."""

    objects: ClassVar[models.Manager["Domain"]] = models.Manager()


class SchemaTemplate(models.Model):
    """The DDL of a fresh tenant schema, kept so that provisioning replays it instead of migrating.

    fingerprint: digest of the migrations that the DDL stands for.
    ddl: SQL with the schema's name as `{schema}`, and the rows of django_migrations after it.
    """

    fingerprint = models.CharField(max_length=64, primary_key=True)
    ddl = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)


class OperatorAudit(models.Model):
    """What an operator did to the platform or to a tenant; kept when the tenant is gone."""

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    actor = models.CharField(max_length=200)
    action = models.CharField(max_length=80)
    tenant_id = models.CharField(max_length=40, blank=True)
    detail = models.JSONField(default=dict)

    class Meta:
        ordering = ("-at",)

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.tenant_id}"
