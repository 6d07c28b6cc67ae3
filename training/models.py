"""A tenant's datasets, experiments and training runs."""

import uuid

from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Concat, Right
from django.utils import timezone

from models_registry.models import Bundle, ModelVersion, name_validator
from runtimes.errors import plain
from tenants.models import Job

LOG_CHARS = 64 << 10
# What no list of runs shows, and may be long; a run's own page reads it when asked for.
HEAVY = (
    "log",
    "dataset_version__columns",
    "version__signature",
    "version__metadata",
    "version__inspection",
    "version__params",
)


class Dataset(models.Model):
    """A name under which versions of a table are kept."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100, unique=True, validators=[name_validator])
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class DatasetVersion(models.Model):
    """A table as it was uploaded, known by the digest of its bytes.

    format: `csv`. columns: its header. row_count: without the header and blank lines.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="versions")
    digest = models.CharField(max_length=64)
    bundle = models.ForeignKey(Bundle, on_delete=models.PROTECT, related_name="+")
    format = models.CharField(max_length=20)
    file_name = models.CharField(max_length=255)
    columns = models.JSONField(default=list)
    row_count = models.PositiveBigIntegerField()
    size_bytes = models.PositiveBigIntegerField()
    created_by = models.CharField(max_length=250, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-created_at",)
        constraints = (models.UniqueConstraint(fields=["dataset", "digest"], name="training_dataset_digest_once"),)

    def __str__(self) -> str:
        return f"{self.dataset}@{self.digest[:12]}"

    @property
    def state(self) -> str:
        """Where it is in its life: always `ready`, since a file is checked while it is uploaded."""
        return "ready"


class Experiment(models.Model):
    """A name under which runs are compared."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=250, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class RunKind(models.TextChoices):
    """Who executes a run."""

    MANAGED = "managed", "Managed"
    EXTERNAL = "external", "External"


class DecisionState(models.TextChoices):
    """What became of a run's `activate_if`."""

    PENDING = "pending", "Pending"
    ACTIVATED = "activated", "Activated"
    KEPT = "kept", "What served was kept"


class Run(models.Model):
    """One attempt to make a model: executed here (managed) or logged by a client (external).

    The state of a managed run is that of its job, which has the run's own id; an external run says it by itself.

    params: the trainer's parameters. validation: how it is judged (`kind`, `fraction`, `seed`).
    activate_if: `metric`, `margin` and `direction` (`max` or `min`) by which it must beat what serves to be activated.
    activation_decision: `state` (`pending`, `activated`, `kept`), `reason` and the numbers that were compared.
    log: what happened, a line each, the oldest dropped beyond LOG_CHARS.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=10, choices=RunKind, default=RunKind.MANAGED)
    job = models.OneToOneField(
        Job, null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", editable=False
    )
    experiment = models.ForeignKey(Experiment, null=True, on_delete=models.PROTECT, related_name="runs")
    external_state = models.CharField(max_length=12, blank=True)
    trainer = models.CharField(max_length=100, blank=True)
    params = models.JSONField(default=dict)
    target = models.CharField(max_length=250, blank=True)
    validation = models.JSONField(default=dict)
    dataset_version = models.ForeignKey(DatasetVersion, null=True, on_delete=models.PROTECT, related_name="runs")
    model_name = models.CharField("model", max_length=100, blank=True)
    activate_if = models.JSONField(null=True)
    activation_decision = models.JSONField(null=True)
    version = models.ForeignKey(ModelVersion, null=True, on_delete=models.SET_NULL, related_name="runs")
    metrics = models.JSONField(default=dict)
    libraries = models.JSONField(default=dict)
    tags = models.JSONField(default=dict)
    duration_s = models.FloatField(null=True)
    peak_memory_bytes = models.PositiveBigIntegerField(null=True)
    log = models.TextField(blank=True)
    created_by = models.CharField(max_length=250, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-created_at",)
        constraints = (
            models.CheckConstraint(
                condition=Q(kind=RunKind.MANAGED, external_state="") | Q(kind=RunKind.EXTERNAL, job=None),
                name="training_run_has_one_state",
            ),
        )

    def __str__(self) -> str:
        return f"{self.trainer or self.kind} run {self.id}"

    @property
    def state(self) -> str:
        """Where it is in its life: its job's state, or what its client said."""
        return self.job.state if self.job else self.external_state

    def write_log(self, line: str) -> None:
        """Add a line with the time to the log, in one UPDATE."""
        text = f"{timezone.now():%Y-%m-%dT%H:%M:%SZ} {plain(line, 1000)}\n"
        longer = Right(Concat("log", Value(text), output_field=models.TextField()), LOG_CHARS)
        Run.objects.filter(pk=self.pk).update(log=longer)


class RunMetric(models.Model):
    """One value of a metric's history."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="metric_history")
    key = models.CharField(max_length=250)
    value = models.FloatField()
    step = models.BigIntegerField(default=0)
    at = models.DateTimeField()

    class Meta:
        ordering = ("key", "step", "at")
        indexes = (models.Index(fields=["run", "key", "step"], name="training_run_metric"),)

    def __str__(self) -> str:
        return f"{self.key}={self.value}"
