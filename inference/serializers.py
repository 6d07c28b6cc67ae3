"""Inference's JSON."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from inference.models import AsyncPrediction
from models_registry.serializers import StorableField
from tenants.job_api import JobSerializer
from tenants.serializers import LARGEST_INT, PatternField, Strict

LIST: dict[str, Any] = {"type": "array", "items": {}}


class AsyncPredictionSerializer(JobSerializer):
    """A job, with the answer of `predict` once it has succeeded."""

    answer = serializers.JSONField(allow_null=True, read_only=True)


def prediction_body(prediction: AsyncPrediction) -> dict[str, Any]:
    """A prediction as `AsyncPredictionSerializer` describes it."""
    return {**JobSerializer(prediction.job).data, "answer": prediction.answer}


@extend_schema_field({"anyOf": [{"type": kind} for kind in ("string", "number", "boolean", "object")] + [LIST]})
class TruthField(StorableField):
    """Any JSON value but null."""


class FeedbackSerializer(Strict):
    """id: of a prediction. row: counted from 0. truth: any JSON value but null."""

    id = PatternField(r"^[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}\Z")
    row = serializers.IntegerField(min_value=0, max_value=LARGEST_INT, default=0)
    truth = TruthField()

    def service_arguments(self) -> dict[str, Any]:
        """The keyword arguments of `services.give_feedback`."""
        data = self.validated_data
        return {"prediction_id": data["id"].replace("-", ""), "row": data["row"], "truth": data["truth"]}
