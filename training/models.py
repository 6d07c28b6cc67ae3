"""A tenant's datasets, experiments and training runs."""

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Concat, Right
from django.utils import timezone

from models_registry.models import Bundle, ModelVersion, name_validator
from runtimes.errors import plain
from tenants.models import Job, JobState

LOG_CHARS = 64 << 10
CUSTOM = "custom"  # the trainer of who brings a program
LIBRARY_SET = "library_set"  # the tag that names the set such a program needs
# What no list of runs shows, and may be long; a run's own page reads it when asked for.
HEAVY = (
    "log",
    "evaluation",
    "inputs",
    "dataset_version__columns",
    "dataset_version__profile",
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


class DatasetState(models.TextChoices):
    """Where a version of a dataset is in its life."""

    PROFILING = "profiling", "Being read"
    READY = "ready", "Ready"
    REJECTED = "rejected", "Rejected"


class DatasetVersion(models.Model):
    """A table as it was uploaded, known by the digest of its bytes.

    profiling ──> ready
        └───────> rejected

    CSV and JSON Lines are checked while they are uploaded and ready at once; a Parquet file is ready once a confined
    runner has read it. Every version is profiled in one (`training.profiling`).

    format: `csv`, `jsonl`, `parquet`, or `coco` for a zip of images with annotations, each image a row. columns: their
        names. row_count: without a header and blank lines.
    profile: `runtimes.profiles.Profile` as JSON; null until it is made.
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
    state = models.CharField(max_length=10, choices=DatasetState, default=DatasetState.READY)
    rejection_reason = models.CharField(max_length=1000, blank=True)
    profile = models.JSONField(null=True)
    created_by = models.CharField(max_length=250, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-created_at",)
        constraints = (models.UniqueConstraint(fields=["dataset", "digest"], name="training_dataset_digest_once"),)

    def __str__(self) -> str:
        return f"{self.dataset}@{self.digest[:12]}"

    @property
    def path(self) -> str:
        """Where its bundle has the file."""
        return path_of(self.format)


def path_of(format_name: str) -> str:
    """Where every bundle has a table of this format, so that the same bytes are the same bundle."""
    return f"data.{format_name}"


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


class Purpose(models.TextChoices):
    """What a managed run is for."""

    FIT = "fit", "Fit"
    SEARCH = "search", "Search"
    TRIAL = "trial", "Trial of a search"
    EVALUATION = "evaluation", "Evaluation of a version"


class DecisionState(models.TextChoices):
    """What became of a run's `activate_if`."""

    PENDING = "pending", "Pending"
    ACTIVATED = "activated", "Activated"
    KEPT = "kept", "What served was kept"


class Run(models.Model):
    """One attempt to make a model: executed here (managed) or logged by a client (external).

    The state of a managed run is that of its job, which has the run's own id; an external run says it by itself.

    purpose: a fit, a search with its trials as children, or the evaluation of a version that is there.
    params: the trainer's parameters. validation: how it is judged (`kind`, `fraction`, `folds`, `seed`).
    search: of a search, `method`, `trials`, `space`, `metric`, `direction`, `seed`, `prune` and `parallel`; of a trial,
    its `number` and `value`, and whether it was `pruned`.
    code: the zip of a custom trainer. code_digest: of that zip, or of the platform's own trainers.
    metrics: measured here. metrics_reported: as a custom trainer's own program gave them.
    evaluation: `runtimes.measured.Evaluation` as JSON. group: what an operator began over several tenants.
    name, started_at, finished_at, inputs, deleted_at: of external runs. inputs: datasets as their client named them,
    `[{"name", "digest", "source_type", "source", "schema", "profile", "tags"}]`.
    activate_if: `metric`, `margin` and `direction` (`max` or `min`) by which it must beat what serves to be activated.
    activation_decision: `state` (`pending`, `activated`, `kept`), `reason` and the numbers that were compared.
    log: what happened, a line each, the oldest dropped beyond LOG_CHARS.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=10, choices=RunKind, default=RunKind.MANAGED)
    job = models.OneToOneField(
        Job, null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", editable=False
    )
    purpose = models.CharField(max_length=10, choices=Purpose, default=Purpose.FIT)
    parent = models.ForeignKey("self", null=True, on_delete=models.CASCADE, related_name="trials")
    name = models.CharField(max_length=250, blank=True)
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
    search = models.JSONField(null=True)
    code = models.ForeignKey(Bundle, null=True, on_delete=models.PROTECT, related_name="+")
    code_digest = models.CharField(max_length=64, blank=True)
    group = models.UUIDField(null=True, db_index=True)
    metrics = models.JSONField(default=dict)
    metrics_reported = models.JSONField(default=dict)
    evaluation = models.JSONField(null=True)
    inputs = models.JSONField(default=list)
    libraries = models.JSONField(default=dict)
    tags = models.JSONField(default=dict)
    duration_s = models.FloatField(null=True)
    peak_memory_bytes = models.PositiveBigIntegerField(null=True)
    log = models.TextField(blank=True)
    created_by = models.CharField(max_length=250, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    deleted_at = models.DateTimeField(null=True)

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
        if self.job is None:
            return self.external_state
        if self.purpose == Purpose.SEARCH and self.job.state == JobState.QUEUED and self.job.started_at:
            return str(JobState.RUNNING)  # its job rests while its trials run
        return self.job.state

    def write_log(self, *lines: str) -> None:
        """Add lines with the time to the log, in one UPDATE."""
        now = f"{timezone.now():%Y-%m-%dT%H:%M:%SZ}"
        text = "".join(f"{now} {plain(line, 1000)}\n" for line in lines)
        longer = Right(Concat("log", Value(text), output_field=models.TextField()), LOG_CHARS)
        Run.objects.filter(pk=self.pk).update(log=longer)


class SearchManager(models.Manager["Search"]):
    """Runs that are searches."""

    def get_queryset(self) -> models.QuerySet["Search"]:
        return super().get_queryset().filter(purpose=Purpose.SEARCH)


class Search(Run):
    """A run that is a search: it has trials, and pages of its own."""

    objects: ClassVar[SearchManager] = SearchManager()

    class Meta:
        proxy = True
        verbose_name_plural = "searches"

    def __str__(self) -> str:
        return f"{self.trainer} search {self.id}"


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


class RunArtifact(models.Model):
    """A file that a client logged with an external run, at a relative path with '/' between its parts."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="artifacts")
    path = models.CharField(max_length=500)
    bundle = models.ForeignKey(Bundle, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("path",)
        constraints = (models.UniqueConstraint(fields=["run", "path"], name="training_run_artifact_once"),)

    def __str__(self) -> str:
        return self.path
