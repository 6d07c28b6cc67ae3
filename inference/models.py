"""Predictions that outlive their request, and what was true of them."""

import uuid

from django.db import models

from models_registry.models import Activation, Bundle, ModelVersion
from tenants.models import Job


class AsyncPrediction(models.Model):
    """A prediction that was asked for now and is fetched later; its job has its own id.

    request: the decoded body as it was asked. answer: the body of the answer, once its job has succeeded.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    job = models.OneToOneField(Job, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+")
    version = models.ForeignKey(ModelVersion, null=True, on_delete=models.SET_NULL, related_name="+")
    model_name = models.CharField(max_length=100)
    request = models.JSONField()
    answer = models.JSONField(null=True)
    created_by = models.CharField(max_length=250, blank=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"{self.model_name} {self.id}"


class BatchJob(models.Model):
    """A table in a file, predicted by a worker in chunks; its job has its own id.

    table: the bundle whose file `table_path` holds it. format: csv, jsonl or parquet; the result has the same.
    dataset: the dataset and version that it came from, if it was not uploaded for this.
    parts: the answers to the chunks that are done, as `inference.batch.parts` keeps them until there is a result.
    row_count, fault_count: of the chunks that are done; faults are rows with an error instead of a prediction.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    job = models.OneToOneField(Job, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+")
    version = models.ForeignKey(ModelVersion, null=True, on_delete=models.SET_NULL, related_name="+")
    model_name = models.CharField("model", max_length=100)
    version_number = models.PositiveIntegerField()
    table = models.ForeignKey(Bundle, on_delete=models.PROTECT, related_name="+")
    table_path = models.CharField(max_length=255)
    format = models.CharField(max_length=10)
    dataset = models.CharField(max_length=200, blank=True)
    file_name = models.CharField(max_length=255)
    probabilities = models.BooleanField(default=False)
    parts = models.JSONField(default=list)
    row_count = models.PositiveBigIntegerField(default=0)
    fault_count = models.PositiveBigIntegerField(default=0)
    result = models.ForeignKey(Bundle, null=True, on_delete=models.PROTECT, related_name="+")
    created_by = models.CharField(max_length=250, blank=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"{self.model_name} v{self.version_number} on {self.file_name}"


class Feedback(models.Model):
    """What turned out to be true of a predicted row."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    prediction_id = models.CharField(max_length=64, db_index=True)
    row = models.PositiveIntegerField(default=0)
    truth = models.JSONField()
    created_by = models.CharField(max_length=250, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["prediction_id", "row"], name="inference_feedback_once"),)

    def __str__(self) -> str:
        return f"{self.prediction_id}[{self.row}]"


class ShadowReport(models.Model):
    """What was seen of the shadow of one activation, added up.

    tally: `inference.comparison.Tally` as JSON: bounded, whatever the traffic.
    """

    activation = models.OneToOneField(Activation, primary_key=True, on_delete=models.CASCADE, related_name="+")
    version_number = models.PositiveIntegerField()
    tally = models.JSONField(default=dict)
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"v{self.version_number} beside {self.activation}"
