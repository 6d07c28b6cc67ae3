"""Training's JSON."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from pydantic import BaseModel
from rest_framework import serializers

from tenants.job_api import JobErrorSerializer, ProgressSerializer
from tenants.models import JobState
from tenants.serializers import NameField, Strict
from training.models import Dataset, DatasetVersion, Run, RunMetric
from training.run_requests import ActivateIf, RunRequest, Validation


class DatasetUploadSerializer(Strict):
    """A multipart upload. file: CSV in UTF-8 with a header."""

    name = NameField()
    file = serializers.FileField(allow_empty_file=True)


class DatasetSerializer(serializers.ModelSerializer[Dataset]):
    """A dataset with its newest version. versions: how many it has."""

    versions = serializers.IntegerField(source="version_count", read_only=True)
    digest = serializers.CharField(source="newest_digest", read_only=True)

    class Meta:
        model = Dataset
        fields = ("name", "versions", "digest", "created_at")


class DatasetVersionSummarySerializer(serializers.ModelSerializer[DatasetVersion]):
    """A version of a dataset in a list."""

    name = serializers.CharField(source="dataset.name", read_only=True)
    state = serializers.CharField(read_only=True)

    class Meta:
        model = DatasetVersion
        fields: tuple[str, ...] = (
            "name",
            "digest",
            "state",
            "format",
            "file_name",
            "row_count",
            "size_bytes",
            "created_by",
            "created_at",
        )


class DatasetVersionSerializer(DatasetVersionSummarySerializer):
    """A version of a dataset. columns: their names, in the table's order."""

    columns = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta(DatasetVersionSummarySerializer.Meta):
        fields = (*DatasetVersionSummarySerializer.Meta.fields, "columns")


class PreviewSerializer(serializers.Serializer[Any]):
    """The first rows of a table as text. is_whole: there are no others. columns_left_out: of a very wide table."""

    columns = serializers.ListField(child=serializers.CharField())
    rows = serializers.ListField(child=serializers.ListField(child=serializers.CharField(allow_blank=True)))
    is_whole = serializers.BooleanField()
    columns_left_out = serializers.IntegerField()


class TrainerSerializer(serializers.Serializer[Any]):
    """A trainer. params: the JSON Schema of its parameters."""

    name = serializers.CharField()
    title = serializers.CharField()
    task = serializers.ChoiceField(choices=["classification", "regression"])
    params = serializers.DictField()


class TrainersSerializer(serializers.Serializer[Any]):
    """All trainers; there is no further page."""

    results = TrainerSerializer(many=True)
    next = serializers.CharField(allow_null=True)


def described(kind: type[BaseModel]) -> dict[str, Any]:
    """A pydantic model's JSON Schema in the words of OpenAPI 3.0, which has `nullable` instead of a null type."""
    schema = kind.model_json_schema()
    properties = {name: _without_null(told) for name, told in schema["properties"].items()}
    return {key: schema[key] for key in ("type", "required") if key in schema} | {
        "properties": properties,
        "additionalProperties": False,
    }


def _without_null(told: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in told.items() if key not in ("title", "anyOf") and value is not None}
    kinds = [kind for kind in told.get("anyOf", ()) if kind.get("type") != "null"]
    return plain | (kinds[0] | {"nullable": True} if kinds else {})


@extend_schema_field(described(Validation))
class ValidationField(serializers.DictField):
    """How a run's model is judged; `run_requests.check` reads it."""


@extend_schema_field(described(ActivateIf))
class ActivateIfField(serializers.DictField):
    """By what a run's version must beat the one that serves; `run_requests.check` reads it."""


class RunRequestSerializer(Strict):
    """A run to be carried out. digest: of a version of the dataset, the newest one if it is left out."""

    trainer = serializers.CharField(max_length=100)
    dataset = serializers.CharField(max_length=100)
    digest = serializers.CharField(max_length=64, required=False)
    target = serializers.CharField(max_length=250, trim_whitespace=False)
    params = serializers.DictField(required=False, help_text="As the trainer's own schema in `trainers` has them.")
    validation = ValidationField(required=False)
    model = NameField()
    activate_if = ActivateIfField(required=False, allow_null=True, allow_empty=False)
    experiment = serializers.CharField(max_length=250, required=False)

    def run_request(self) -> RunRequest:
        """The request as the service takes it."""
        return RunRequest(**self.validated_data)


class RunSerializer(serializers.ModelSerializer[Run]):
    """A run: what every job has, what it was asked to be, and what came of it. An external run has no job."""

    kind = serializers.CharField(source="job.kind", default="external", read_only=True)
    state = serializers.ChoiceField(choices=JobState.choices, read_only=True)
    progress = ProgressSerializer(source="job", allow_null=True, read_only=True)
    error = serializers.SerializerMethodField()
    started_at = serializers.DateTimeField(source="job.started_at", default=None, allow_null=True, read_only=True)
    finished_at = serializers.DateTimeField(source="job.finished_at", default=None, allow_null=True, read_only=True)
    attempts = serializers.IntegerField(source="job.attempts", default=0, read_only=True)
    experiment = serializers.CharField(source="experiment.name", default=None, allow_null=True, read_only=True)
    dataset = serializers.CharField(
        source="dataset_version.dataset.name", default=None, allow_null=True, read_only=True
    )
    digest = serializers.CharField(source="dataset_version.digest", default=None, allow_null=True, read_only=True)
    model = serializers.CharField(source="model_name", read_only=True)
    params = serializers.DictField(read_only=True)
    validation = serializers.DictField(read_only=True)
    activate_if = serializers.DictField(allow_null=True, read_only=True)
    activation_decision = serializers.DictField(allow_null=True, read_only=True)
    metrics = serializers.DictField(child=serializers.FloatField(), read_only=True)
    libraries = serializers.DictField(child=serializers.CharField(), read_only=True)
    tags = serializers.DictField(child=serializers.CharField(), read_only=True)
    version = serializers.IntegerField(source="version.number", default=None, allow_null=True, read_only=True)

    class Meta:
        model = Run
        fields = (
            "id",
            "kind",
            "state",
            "progress",
            "error",
            "created_at",
            "started_at",
            "finished_at",
            "attempts",
            "experiment",
            "trainer",
            "dataset",
            "digest",
            "target",
            "params",
            "validation",
            "model",
            "version",
            "activate_if",
            "activation_decision",
            "metrics",
            "libraries",
            "tags",
            "duration_s",
            "peak_memory_bytes",
            "created_by",
        )

    @extend_schema_field(JobErrorSerializer(allow_null=True))
    def get_error(self, run: Run) -> dict[str, Any] | None:
        return dict(JobErrorSerializer(run.job).data) if run.job and run.job.error_code else None


class MetricSerializer(serializers.ModelSerializer[RunMetric]):
    """One value of a metric's history."""

    class Meta:
        model = RunMetric
        fields = ("key", "value", "step", "at")


class LogSerializer(serializers.Serializer[Any]):
    """A run's log. is_cut: its oldest lines were dropped."""

    lines = serializers.ListField(child=serializers.CharField())
    is_cut = serializers.BooleanField()


class ComparedValuesSerializer(serializers.Serializer[Any]):
    """One parameter or metric of several runs. values: in the order of `runs`, null where a run has none."""

    name = serializers.CharField()
    values = serializers.ListField(child=serializers.JSONField(allow_null=True))
    is_same = serializers.BooleanField()


class ComparisonSerializer(serializers.Serializer[Any]):
    """Runs side by side."""

    runs = RunSerializer(many=True)
    params = ComparedValuesSerializer(many=True)
    metrics = ComparedValuesSerializer(many=True)


class ExperimentSerializer(Strict):
    """An experiment. runs: how many it has."""

    name = serializers.CharField(max_length=250)
    runs = serializers.IntegerField(source="run_count", read_only=True, default=0)
    created_at = serializers.DateTimeField(read_only=True)
