"""The registry's JSON."""

from collections.abc import Callable
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from models_registry.metadata import MAX_TEXT_CHARS, metrics_fault, storable_fault, tags_fault
from models_registry.models import Activation, Alias, BundleFile, ModelVersion, RegisteredModel, VersionState
from models_registry.selection import DIRECTIONS
from tenants.job_api import ProgressSerializer
from tenants.serializers import NAME, NameField, PatternField, Strict

Fault = Callable[[Any], str | None]
TAGS = {"type": "object", "additionalProperties": {"type": "string"}}
METRICS = {"type": "object", "additionalProperties": {"type": "number"}}
LIST_OR_OBJECT = {"oneOf": [{"type": "array", "items": {}, "minItems": 1}, {"type": "object", "minProperties": 1}]}
METADATA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "metrics": METRICS,
        "params": {"type": "object"},
        "description": {"type": "string", "maxLength": MAX_TEXT_CHARS},
        "tags": TAGS,
        "signature": {"type": "object", "description": "Where inspection would guess wrong: layout, inputs, outputs."},
        "input_example": LIST_OR_OBJECT | {"description": "A list of rows, or an object of columns."},
        "labels": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "Names of the classes."},
        "architecture": LIST_OR_OBJECT | {"description": "Layers, for a file that holds a state_dict alone."},
        "library_set": {"type": "string", "minLength": 1, "maxLength": 100},
        "detection": {"type": "object", "description": "How a detector's tensors are to be read (ONNX)."},
    },
}


class StorableField(serializers.JSONField):
    """A JSON value that PostgreSQL can keep, and in which `fault` (one of `metadata`'s checks) finds nothing wrong."""

    def __init__(self, fault: Fault | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._fault = fault

    def to_internal_value(self, data: Any) -> Any:
        if fault := storable_fault(data) or (self._fault(data) if self._fault else None):
            raise serializers.ValidationError(fault)
        return super().to_internal_value(data)


@extend_schema_field(TAGS)
class TagsField(StorableField):
    """Texts by name."""

    def __init__(self, **options: Any) -> None:
        super().__init__(tags_fault, **options)


@extend_schema_field(METRICS)
class MetricsField(StorableField):
    """Finite numbers by name."""

    def __init__(self, **options: Any) -> None:
        super().__init__(metrics_fault, **options)


class ModelChangeSerializer(Strict):
    """What may be changed of a registered model."""

    description = serializers.CharField(required=False, allow_blank=True, max_length=MAX_TEXT_CHARS)
    task = serializers.CharField(required=False, allow_blank=True, max_length=40)
    tags = TagsField(required=False)


class ModelCreateSerializer(ModelChangeSerializer):
    """A registered model to be made."""

    name = PatternField(NAME)


class ModelSerializer(serializers.ModelSerializer[RegisteredModel]):
    """A registered model. active_version: the number of what serves. latest_version: its highest number."""

    tags = TagsField(read_only=True)
    active_version = serializers.SerializerMethodField()
    latest_version = serializers.IntegerField(read_only=True, allow_null=True)
    version_count = serializers.IntegerField(read_only=True)

    class Meta:
        model = RegisteredModel
        fields = (
            "name",
            "description",
            "task",
            "tags",
            "active_version",
            "latest_version",
            "version_count",
            "created_at",
            "updated_at",
        )

    def get_active_version(self, model: RegisteredModel) -> int | None:
        deployment = getattr(model, "deployment", None)
        return deployment.activation.version_number if deployment else None


class VersionSummarySerializer(serializers.ModelSerializer[ModelVersion]):
    """A version in a list. metrics: all of them; a measured one stands before a reported one of its name."""

    model = serializers.CharField(source="model.name", read_only=True)
    state = serializers.ChoiceField(VersionState.choices, read_only=True)
    reason = serializers.SerializerMethodField()
    metrics = MetricsField(read_only=True)
    metrics_reported = MetricsField(read_only=True)
    metrics_measured = MetricsField(read_only=True)
    tags = TagsField(read_only=True)
    size_bytes = serializers.IntegerField(source="bundle.size_bytes", read_only=True)
    is_active = serializers.BooleanField(read_only=True)
    aliases = serializers.SerializerMethodField()

    class Meta:
        model = ModelVersion
        fields: tuple[str, ...] = (
            "model",
            "number",
            "state",
            "reason",
            "rejection_code",
            "format",
            "task",
            "metrics",
            "metrics_reported",
            "metrics_measured",
            "description",
            "tags",
            "size_bytes",
            "is_active",
            "aliases",
            "source_run",
            "created_by",
            "created_at",
        )

    def get_reason(self, version: ModelVersion) -> str | None:
        return version.rejection_reason or None

    def get_aliases(self, version: ModelVersion) -> list[str]:
        return [alias.name for alias in version.aliases.all()]


class CompilationSerializer(serializers.Serializer[Any]):
    """Whether a version was compiled to ONNX, and how that compares.

    sentence: the verdict in words. max_difference: of numbers, between both forms, over so many sample rows; relative
    where they are large. precision: of the compiled form's numbers. one_row_us, original_one_row_us: how long either
    form took for one row when it was tried.
    """

    state = serializers.ChoiceField([("compiled", "Compiled"), ("not_compiled", "Not compiled")])
    sentence = serializers.CharField()
    max_difference = serializers.FloatField(required=False)
    rows = serializers.IntegerField(required=False)
    seconds = serializers.FloatField(required=False)
    opset = serializers.IntegerField(required=False)
    precision = serializers.CharField(required=False)
    size_bytes = serializers.IntegerField(required=False)
    one_row_us = serializers.FloatField(required=False)
    original_one_row_us = serializers.FloatField(required=False)


class VersionSerializer(VersionSummarySerializer):
    """A version. progress: how far its inspection is; null once that is over. compilation: null before."""

    digest = serializers.CharField(source="bundle.digest", read_only=True)
    progress = serializers.SerializerMethodField()
    signature = serializers.JSONField(read_only=True, allow_null=True)
    params = serializers.JSONField(read_only=True)
    metadata = serializers.JSONField(read_only=True)
    inspection = serializers.JSONField(read_only=True)
    compilation = serializers.SerializerMethodField()
    measured_on = serializers.JSONField(read_only=True)

    class Meta(VersionSummarySerializer.Meta):
        fields = (
            *VersionSummarySerializer.Meta.fields,
            "digest",
            "progress",
            "signature",
            "params",
            "metadata",
            "inspection",
            "compilation",
            "measured_on",
        )

    @extend_schema_field(CompilationSerializer(allow_null=True))
    def get_compilation(self, version: ModelVersion) -> dict[str, Any] | None:
        return version.compilation or None

    @extend_schema_field(ProgressSerializer(allow_null=True))
    def get_progress(self, version: ModelVersion) -> dict[str, Any] | None:
        if version.is_inspected or version.inspection_job is None:
            return None
        return dict(ProgressSerializer(version.inspection_job).data)


class VersionChangeSerializer(Strict):
    """What may be changed of a version. metrics: the reported ones, all of them."""

    description = serializers.CharField(required=False, allow_blank=True, max_length=MAX_TEXT_CHARS)
    tags = TagsField(required=False)
    metrics = MetricsField(required=False)


@extend_schema_field(METADATA)
class MetadataField(serializers.JSONField):
    """What is declared beside the files; `metadata.parse_metadata` reads it."""


class UploadSerializer(Strict):
    """A multipart upload. A path in a file's name makes a folder."""

    file = serializers.ListField(child=serializers.FileField(), min_length=1)
    metadata = MetadataField(required=False)


class FileSerializer(serializers.ModelSerializer[BundleFile]):
    """A file of a version."""

    size_bytes = serializers.IntegerField(source="blob.size_bytes", read_only=True)
    sha256 = serializers.CharField(source="blob.sha256", read_only=True)

    class Meta:
        model = BundleFile
        fields = ("path", "size_bytes", "sha256")


class FilesSerializer(serializers.Serializer[Any]):
    """All files of a version."""

    results = FileSerializer(many=True)


class ReasonSerializer(Strict):
    """Why, for the history."""

    reason = serializers.CharField(required=False, allow_blank=True, max_length=500)


class ActivateSerializer(ReasonSerializer):
    """expected_version: the number that must be serving now, 0 for nothing; absent: whatever serves."""

    expected_version = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=2**31 - 1)


class ActivationSerializer(serializers.ModelSerializer[Activation]):
    """What traffic was routed to from a moment on. version: null where nothing served."""

    model = serializers.CharField(source="model.name", read_only=True)
    version = serializers.IntegerField(source="version_number", read_only=True, allow_null=True)

    class Meta:
        model = Activation
        fields = ("model", "number", "version", "routing", "criteria", "reason", "actor", "created_at")


class AliasTargetSerializer(Strict):
    """The number of the version that an alias is to name."""

    version = serializers.IntegerField(min_value=1, max_value=2**31 - 1)


class AliasSerializer(serializers.ModelSerializer[Alias]):
    """A name for a version."""

    model = serializers.CharField(source="model.name", read_only=True)
    version = serializers.IntegerField(source="version.number", read_only=True)

    class Meta:
        model = Alias
        fields = ("model", "name", "version", "updated_at")


class ActivateBestSerializer(Strict):
    """Exactly one of model and task. dataset: compare only metrics measured on it (`name` or `name@digest`)."""

    also = {"oneOf": [{"required": ["model"]}, {"required": ["task"]}]}

    model = NameField(required=False)
    task = serializers.CharField(required=False, max_length=40)
    metric = serializers.CharField(max_length=250)
    direction = serializers.ChoiceField([(word, word) for word in DIRECTIONS])
    dataset = serializers.CharField(required=False, allow_blank=True, max_length=200)
    reason = serializers.CharField(required=False, allow_blank=True, max_length=500)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("model" in attrs) == ("task" in attrs):
            raise serializers.ValidationError({"model": "Give exactly one of model and task."})
        return attrs


class ComparedSerializer(serializers.Serializer[Any]):
    """A version and its value. source: measured or reported."""

    model = serializers.CharField()
    version = serializers.IntegerField()
    value = serializers.FloatField()
    source = serializers.CharField()  # type: ignore[assignment]
    dataset = serializers.CharField(allow_null=True)


class BestSerializer(serializers.Serializer[Any]):
    """What was chosen, from what and why. compared: the best first, at most 50 of them."""

    model = serializers.CharField()
    version = serializers.IntegerField()
    metric = serializers.CharField()
    direction = serializers.CharField()
    dataset = serializers.CharField(allow_null=True)
    value = serializers.FloatField()
    compared = ComparedSerializer(many=True)
    compared_count = serializers.IntegerField()
    left_out_count = serializers.IntegerField()
    explanation = serializers.CharField()
    activation = ActivationSerializer()
