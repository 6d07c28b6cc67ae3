"""The JSON of runs that clients log."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from tenants.models import JobState
from tenants.serializers import Strict
from training.external_runs import INPUT_CHARS, MOST_METRICS_AT_ONCE, PARAM_CHARS, TAG_CHARS, Logged, LoggedMetric
from training.models import RunArtifact

KEY_CHARS, NAME_CHARS = 250, 500
MOST_AT_ONCE = 1_000
BIGGEST_STEP = 2**63 - 1
FIRST_YEAR, LAST_YEAR = 1970, 9000


class KeyField(serializers.CharField):
    """The name of a parameter, a metric or a tag."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=KEY_CHARS, trim_whitespace=False, **kwargs)


@extend_schema_field(
    {"type": "object", "additionalProperties": {"oneOf": [{"type": kind} for kind in ("string", "number", "boolean")]}}
)
class ParamsField(serializers.DictField):
    """Parameters: texts, numbers and booleans by their names."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        params: dict[str, Any] = super().to_internal_value(data)
        for name, value in params.items():
            if not 1 <= len(name) <= KEY_CHARS:
                raise serializers.ValidationError(f"A name has 1 to {KEY_CHARS} characters.")
            if not isinstance(value, str | int | float | bool):
                raise serializers.ValidationError({name: "It is a text, a number or a boolean."})
            if len(str(value)) > PARAM_CHARS:
                raise serializers.ValidationError({name: f"It has at most {PARAM_CHARS} characters."})
        return params


class MomentField(serializers.DateTimeField):
    """A moment since 1970, in any zone; years that PostgreSQL keeps and Python does not know are refused."""

    def to_internal_value(self, value: Any) -> datetime:
        moment: datetime = super().to_internal_value(value)
        if not FIRST_YEAR <= moment.year <= LAST_YEAR:
            raise serializers.ValidationError(f"It lies between {FIRST_YEAR} and {LAST_YEAR}.")
        return moment


class TagsField(serializers.DictField):
    """Texts by their names."""

    child = serializers.CharField(max_length=TAG_CHARS, allow_blank=True, trim_whitespace=False)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        told = data.items() if isinstance(data, Mapping) else ()
        if others := [name for name, value in told if not isinstance(value, str)]:  # which DRF would convert
            raise serializers.ValidationError({str(others[0])[:KEY_CHARS]: "This is not a text."})
        tags: dict[str, Any] = super().to_internal_value(data)
        if any(not 1 <= len(name) <= KEY_CHARS for name in tags):
            raise serializers.ValidationError(f"A name has 1 to {KEY_CHARS} characters.")
        return tags


class LoggedMetricSerializer(Strict):
    """One value of a metric. step: 0 unless told. at: when it was measured; now unless told."""

    key = KeyField()
    value = serializers.FloatField()
    step = serializers.IntegerField(required=False, min_value=-BIGGEST_STEP, max_value=BIGGEST_STEP)
    at = MomentField(required=False)

    def validate_value(self, value: float) -> float:
        if not math.isfinite(value):
            raise serializers.ValidationError("It is a finite number.")
        return value


class InputSerializer(Strict):
    """A dataset that a run used, as its client knows it; `name` and `digest` are what it is known by."""

    name = serializers.CharField(max_length=NAME_CHARS)
    digest = serializers.CharField(max_length=NAME_CHARS)
    source_type = serializers.CharField(max_length=NAME_CHARS, required=False, allow_blank=True)
    source = serializers.CharField(  # type: ignore[assignment]  # a field of this name, as MLflow has it
        max_length=INPUT_CHARS, required=False, allow_blank=True
    )
    schema = serializers.CharField(max_length=INPUT_CHARS, required=False, allow_blank=True)
    profile = serializers.CharField(max_length=INPUT_CHARS, required=False, allow_blank=True)
    tags = TagsField(required=False)


class LoggedSerializer(Strict):
    """What a client logs at once; each part may be left out."""

    params = ParamsField(required=False)
    metrics = LoggedMetricSerializer(  # type: ignore[call-arg]  # of the list
        many=True, required=False, max_length=MOST_METRICS_AT_ONCE
    )
    tags = TagsField(required=False)
    inputs = InputSerializer(many=True, required=False, max_length=MOST_AT_ONCE)  # type: ignore[call-arg]  # of the list

    def logged(self) -> Logged:
        """The same as the service takes it."""
        said, now = self.validated_data, timezone.now()
        return Logged(
            params=said.get("params", {}),
            metrics=[
                LoggedMetric(one["key"], one["value"], one.get("step", 0), one.get("at", now))
                for one in said.get("metrics", ())
            ],
            tags=said.get("tags", {}),
            inputs=[dict(one) for one in said.get("inputs", ())],
        )


class ExternalRunSerializer(LoggedSerializer):
    """A run that begins now, or began at `started_at`, and what is known of it already."""

    name = serializers.CharField(max_length=250, required=False, allow_blank=True)
    experiment = serializers.CharField(max_length=250, required=False)
    model = serializers.CharField(max_length=100, required=False)
    started_at = MomentField(required=False)


class ExternalRunChangeSerializer(Strict):
    """What is to be changed of a run: a state that ends it, or `running`, where it goes on."""

    name = serializers.CharField(max_length=250, required=False, allow_blank=True)
    state = serializers.ChoiceField(choices=JobState.choices, required=False)
    finished_at = MomentField(required=False)


class ArtifactUploadSerializer(Strict):
    """A file of a run. path: where it lies among the run's files; the name of the file unless told."""

    path = serializers.CharField(max_length=500, required=False, allow_blank=True, trim_whitespace=False)
    file = serializers.FileField(allow_empty_file=True)


class RunArtifactSerializer(serializers.ModelSerializer[RunArtifact]):
    """A file that was logged with a run."""

    size_bytes = serializers.IntegerField(source="bundle.size_bytes", read_only=True)

    class Meta:
        model = RunArtifact
        fields = ("path", "size_bytes", "created_at")


class RunInputsSerializer(serializers.Serializer[Any]):
    """The datasets that a run used; there is no further page."""

    results = InputSerializer(many=True)
    next = serializers.CharField(allow_null=True)
