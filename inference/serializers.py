"""Inference's JSON."""

from typing import Any

from rest_framework import serializers

from inference.models import AsyncPrediction, Feedback
from tenants.job_api import JobSerializer


class AsyncPredictionSerializer(JobSerializer):
    """A job, with the answer of `predict` once it has succeeded."""

    answer = serializers.JSONField(allow_null=True, read_only=True)


def prediction_body(prediction: AsyncPrediction) -> dict[str, Any]:
    """A prediction as `AsyncPredictionSerializer` describes it."""
    return {**JobSerializer(prediction.job).data, "answer": prediction.answer}


class FeedbackSerializer(serializers.Serializer[Feedback]):
    """id: of a prediction. row: counted from 0. truth: any JSON value."""

    id = serializers.RegexField(r"^[0-9a-f-]{32,36}$")
    row = serializers.IntegerField(min_value=0, default=0)
    truth = serializers.JSONField()

    def service_arguments(self) -> dict[str, Any]:
        """The keyword arguments of `services.give_feedback`."""
        data = self.validated_data
        return {"prediction_id": data["id"].replace("-", ""), "row": data["row"], "truth": data["truth"]}
