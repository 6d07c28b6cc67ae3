"""Batch jobs as JSON."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from inference.models import BatchJob
from tenants.job_api import JobErrorSerializer, ProgressSerializer
from tenants.models import JobState
from tenants.serializers import NameField, Strict


class BatchJobSerializer(serializers.Serializer[BatchJob]):
    """A job, with the table that it predicts.

    rows: of the chunks that are done. failed_rows: those of them that have an error instead of a prediction.
    """

    id = serializers.UUIDField()
    kind = serializers.CharField(source="job.kind")
    state = serializers.ChoiceField(choices=JobState.choices, source="job.state")
    progress = ProgressSerializer(source="job")
    error = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True, source="job.started_at")
    finished_at = serializers.DateTimeField(allow_null=True, source="job.finished_at")
    model = serializers.CharField(source="model_name")
    version = serializers.IntegerField(source="version_number")
    file_name = serializers.CharField()
    dataset = serializers.CharField(allow_blank=True)
    format = serializers.CharField()
    probabilities = serializers.BooleanField()
    rows = serializers.IntegerField(source="row_count")
    failed_rows = serializers.IntegerField(source="fault_count")
    result_bytes = serializers.SerializerMethodField()

    @extend_schema_field(JobErrorSerializer(allow_null=True))
    def get_error(self, batch: BatchJob) -> dict[str, Any] | None:
        return dict(JobErrorSerializer(batch.job).data) if batch.job.error_code else None

    def get_result_bytes(self, batch: BatchJob) -> int | None:
        return batch.result.size_bytes if batch.result else None


class BatchRequestSerializer(Strict):
    """dataset: its newest version is predicted. version or alias: another than what serves."""

    model = NameField()
    dataset = NameField()
    version = serializers.IntegerField(min_value=1, max_value=2**31 - 1, required=False)
    alias = NameField(required=False)
    probabilities = serializers.BooleanField(default=False)


class BatchUploadSerializer(Strict):
    """A multipart upload. file: CSV, JSON Lines or Parquet. format: where the file's name does not tell."""

    model = NameField()
    file = serializers.FileField(allow_empty_file=True)
    format = serializers.ChoiceField(choices=["csv", "jsonl", "parquet"], required=False)
    version = serializers.IntegerField(min_value=1, max_value=2**31 - 1, required=False)
    alias = NameField(required=False)
    probabilities = serializers.BooleanField(default=False)
