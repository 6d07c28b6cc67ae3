"""A tenant's registered models: their versions, the files under them, their names, and what serves."""

import re
import uuid
from typing import Any, Self

from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Coalesce
from django.utils import timezone

from tenants.models import Job

NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


def is_name(text: str) -> bool:
    """Whether this may name a model, an alias or a dataset: 1 to 100 of A-Z, a-z, 0-9, "." "_" "-", no "." or ".."."""
    return bool(NAME.fullmatch(text)) and text not in (".", "..")


name_validator = RegexValidator(
    r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}$", "A name is 1 to 100 of A-Z, a-z, 0-9, '.', '_', '-'."
)


class Blob(models.Model):
    """One file's content, kept once a tenant whatever names it.

    incoming ──> stored ──> (incoming again) ──> gone, once nothing names it

    A row stands before its bytes do and goes after them, so that bytes without a row cannot be: whoever stores or
    deletes them may die at any moment. `touched_at` is renewed by every upload that uses the blob; the collector
    (`blobs.sweep`) leaves what was touched lately.

    sha256: empty until it is stored.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    sha256 = models.CharField(max_length=64, blank=True)
    size_bytes = models.PositiveBigIntegerField(default=0)
    storage_alias = models.CharField(max_length=40)
    is_stored = models.BooleanField(default=False)
    touched_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["sha256", "storage_alias"], condition=models.Q(is_stored=True), name="registry_blob_once"
            ),
        )

    def __str__(self) -> str:
        return self.sha256 or f"incoming {self.id}"


class BlobChunk(models.Model):
    """A piece of a file of the `database` storage."""

    name = models.CharField(max_length=200)
    number = models.PositiveIntegerField()
    data = models.BinaryField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["name", "number"], name="registry_blob_chunk_once"),)

    def __str__(self) -> str:
        return f"{self.name} #{self.number}"


class Bundle(models.Model):
    """An immutable tree of files; the same tree is the same bundle.

    digest: SHA-256 over its sorted paths and their files' digests.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    digest = models.CharField(max_length=64, unique=True)
    size_bytes = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.digest


class BundleFile(models.Model):
    """A file of a bundle, at a relative path with '/' between its parts."""

    bundle = models.ForeignKey(Bundle, on_delete=models.CASCADE, related_name="files")
    path = models.CharField(max_length=500)
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="+")

    class Meta:
        ordering = ("path",)
        constraints = (models.UniqueConstraint(fields=["bundle", "path"], name="registry_bundle_path_once"),)

    def __str__(self) -> str:
        return self.path


class RegisteredModelQuerySet(models.QuerySet["RegisteredModel"]):
    """Sets of registered models."""

    def with_standing(self) -> Self:
        """With `latest_version`, `version_count` and what serves, in this one query."""
        versions = ModelVersion.objects.filter(model=models.OuterRef("pk")).order_by().values("model")
        # What was compared when it was activated may be long, and no list shows it.
        activated = self.select_related("deployment__activation").defer("deployment__activation__criteria")
        return activated.annotate(
            latest_version=models.Subquery(versions.values(found=models.Max("number"))),
            version_count=Coalesce(models.Subquery(versions.values(found=models.Count("pk"))), 0),
        )


class RegisteredModel(models.Model):
    """A name under which versions of a model are kept.

    last_number: the number of its newest version; numbers are never used again.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100, unique=True, validators=[name_validator])
    description = models.TextField(blank=True)
    task = models.CharField(max_length=40, blank=True)
    tags = models.JSONField(default=dict, blank=True)
    last_number = models.PositiveIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = RegisteredModelQuerySet.as_manager()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class VersionState(models.TextChoices):
    """Where a version is in its life."""

    PENDING = "pending", "Pending"
    INSPECTING = "inspecting", "Inspecting"
    READY = "ready", "Ready"
    REJECTED = "rejected", "Rejected"


class ModelVersionQuerySet(models.QuerySet["ModelVersion"]):
    """Sets of versions."""

    def ready(self) -> Self:
        """Those that may serve."""
        return self.filter(state=VersionState.READY)

    def light(self) -> Self:
        """Without what only a version's own page shows and may have a megabyte each; it is read when asked for."""
        return self.defer("metadata", "inspection", "signature", "params")

    def with_standing(self) -> Self:
        """With `is_active`, aliases, size and the inspection's job, in two queries."""
        serving = Deployment.objects.filter(activation__version=models.OuterRef("pk"))
        related = self.select_related("model", "bundle", "inspection_job").prefetch_related("aliases")
        return related.annotate(is_active=models.Exists(serving))


class ModelVersion(models.Model):
    """One trained model: a bundle of files and what is known of it.

    pending ──> inspecting ──> ready
                    └────────> rejected

    A state changes only through the methods below, each of which is one conditional UPDATE.

    metrics_reported: as its uploader gave them. metrics_measured: by runs on this platform.
    signature: `runtimes.signature.Signature` as JSON; null until inspected.
    metadata: what its uploader declared beside the files (labels, architecture, library_set, input_example).
    inspection: what inspection found (made_with, libraries, type_name, warnings, memory_bytes, load_seconds,
        scan).
    compilation: whether it was compiled to ONNX, and how that compares (`runtimes.compilation.requesting.Compilation`).
    compiled_bundle: the compiled form, which serves; the original stays what is downloaded.
    measured_on: the dataset of the measured metrics, as `{"dataset": name, "digest": hex}`; empty where none was named.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    model = models.ForeignKey(RegisteredModel, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=12, choices=VersionState, default=VersionState.PENDING)
    rejection_code = models.CharField(max_length=60, blank=True)
    rejection_reason = models.TextField(blank=True)
    bundle = models.ForeignKey(Bundle, on_delete=models.PROTECT, related_name="versions")
    format = models.CharField(max_length=40, blank=True)
    task = models.CharField(max_length=40, blank=True)
    signature = models.JSONField(null=True)
    metadata = models.JSONField(default=dict)
    inspection = models.JSONField(default=dict)
    compilation = models.JSONField(default=dict, editable=False)
    compiled_bundle = models.ForeignKey(Bundle, null=True, editable=False, on_delete=models.PROTECT, related_name="+")
    metrics_reported = models.JSONField(default=dict, blank=True)
    metrics_measured = models.JSONField(default=dict, blank=True)
    measured_on = models.JSONField(default=dict, blank=True)
    params = models.JSONField(default=dict, blank=True)
    description = models.TextField(blank=True)
    tags = models.JSONField(default=dict, blank=True)
    source_run = models.UUIDField(null=True, editable=False)
    inspection_job = models.ForeignKey(
        Job, null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", editable=False
    )
    created_by = models.CharField(max_length=250, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ModelVersionQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)
        constraints = (models.UniqueConstraint(fields=["model", "number"], name="registry_version_number_once"),)

    def __str__(self) -> str:
        return f"{self.model} v{self.number}"

    @property
    def is_ready(self) -> bool:
        """Whether it may serve."""
        return self.state == VersionState.READY

    @property
    def is_inspected(self) -> bool:
        """Whether its state will not change any more."""
        return self.state in (VersionState.READY, VersionState.REJECTED)

    def begin_inspection(self) -> bool:
        """Show that it is being inspected; False if that is over, or the version gone."""
        return self._while_open(state=VersionState.INSPECTING)

    def accept(self, **found: Any) -> bool:
        """Let it serve, with what inspection found; False if it was settled before."""
        return self._while_open(state=VersionState.READY, **found)

    def reject(self, code: str, reason: str) -> bool:
        """Never let it serve, for this reason; False if it was settled before."""
        return self._while_open(state=VersionState.REJECTED, rejection_code=code[:60], rejection_reason=reason)

    def _while_open(self, **changes: Any) -> bool:
        is_open = ModelVersion.objects.filter(pk=self.pk, state__in=(VersionState.PENDING, VersionState.INSPECTING))
        changed = bool(is_open.update(**changes))
        if changed:
            for name, value in changes.items():
                setattr(self, name, value)
        return changed

    @property
    def metrics(self) -> dict[str, Any]:
        """Every metric by its name; a measured one stands before a reported one of the same name."""
        return {**self.metrics_reported, **self.metrics_measured}


class Alias(models.Model):
    """A name for a version; it routes nothing by itself."""

    model = models.ForeignKey(RegisteredModel, on_delete=models.CASCADE, related_name="aliases")
    name = models.CharField(max_length=100, validators=[name_validator])
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="aliases")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("name",)
        constraints = (models.UniqueConstraint(fields=["model", "name"], name="registry_alias_once"),)

    def __str__(self) -> str:
        return f"{self.model}@{self.name}"


class Activation(models.Model):
    """What a model's traffic was routed to from a moment on; rows are only ever added.

    number: counts up a model; the `expected_version` of a compare-and-swap compares `version`.
    version: null where the model was taken out of service.
    routing: the rest of the routing state: `lane`, and later percents, shadow, pins and limits.
    criteria: what `activate-best` or a run's `activate_if` compared, with its numbers.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    model = models.ForeignKey(RegisteredModel, on_delete=models.CASCADE, related_name="activations")
    number = models.PositiveIntegerField()
    version = models.ForeignKey(ModelVersion, null=True, on_delete=models.SET_NULL, related_name="activations")
    version_number = models.PositiveIntegerField(null=True)
    routing = models.JSONField(default=dict)
    criteria = models.JSONField(default=dict)
    reason = models.CharField(max_length=500, blank=True)
    actor = models.CharField(max_length=250)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-number",)
        constraints = (models.UniqueConstraint(fields=["model", "number"], name="registry_activation_number_once"),)

    def __str__(self) -> str:
        return f"{self.model} #{self.number}: {self.version_number or 'nothing'}"


class Deployment(models.Model):
    """What serves for a model now: a pointer to its newest activation, moved by compare-and-swap."""

    model = models.OneToOneField(RegisteredModel, primary_key=True, on_delete=models.CASCADE, related_name="deployment")
    activation = models.ForeignKey(Activation, on_delete=models.PROTECT, related_name="+")

    def __str__(self) -> str:
        return str(self.activation)

    @property
    def version(self) -> ModelVersion | None:
        """The version that serves, if one does."""
        return self.activation.version
