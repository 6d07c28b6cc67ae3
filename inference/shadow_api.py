"""What was seen of a model's shadow, over HTTP."""

from typing import Any

from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.errors import NotFound
from common.queries import whole_number_asked
from inference.comparison import Tally
from inference.models import ShadowReport
from models_registry.api import found_model
from models_registry.history import newest
from models_registry.models import Activation
from tenants.serializers import LARGEST_INT


class DifferenceSerializer(serializers.Serializer[Any]):
    """How far apart the numbers of an output were."""

    count = serializers.IntegerField()
    mean = serializers.FloatField()
    max = serializers.FloatField()


class DisagreementSerializer(serializers.Serializer[Any]):
    """A row to which the two versions said different things; each part is cut off where it is long."""

    at = serializers.DateTimeField()
    row = serializers.IntegerField()
    answered = serializers.JSONField()
    shadow = serializers.JSONField()
    inputs = serializers.JSONField()


class ShadowReportSerializer(serializers.Serializer[Any]):
    """What the shadow of an activation said beside who answered. agreement: the part of the rows to which both said the
    same, null before the first; numbers agree within a hundred-thousandth. failed: requests that it could not answer.
    dropped: those that it was not asked, since it was behind. Times are a request's, in milliseconds."""

    model = serializers.CharField()
    activation = serializers.IntegerField()
    version = serializers.IntegerField(allow_null=True)
    shadow = serializers.IntegerField(allow_null=True)
    requests = serializers.IntegerField()
    rows = serializers.IntegerField()
    agreement = serializers.FloatField(allow_null=True)
    failed = serializers.IntegerField()
    dropped = serializers.IntegerField()
    answered_mean_ms = serializers.FloatField(allow_null=True)
    shadow_mean_ms = serializers.FloatField(allow_null=True)
    shadow_max_ms = serializers.FloatField(allow_null=True)
    differences = serializers.DictField(child=DifferenceSerializer())
    disagreements = DisagreementSerializer(many=True)
    last_failure = serializers.CharField()
    updated_at = serializers.DateTimeField(allow_null=True)


class ShadowView(APIView):
    """What was seen of a model's shadow."""

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "activation",
                {"type": "integer", "minimum": 1, "maximum": LARGEST_INT},
                description="The number of the activation whose shadow it was; the newest one if not given.",
            )
        ],
        responses=ShadowReportSerializer,
    )
    def get(self, request: Request, name: str) -> Response:
        """Show it, counted since the activation; what was seen in the last seconds may be missing."""
        model = found_model(name)
        number = whole_number_asked(request, "activation", 0, LARGEST_INT) if "activation" in request.GET else 0
        activation = Activation.objects.filter(model=model, number=number).first() if number else newest(model)
        if activation is None:
            raise NotFound(f"There is no activation {number} of {name}." if number else f"{name} was never active.")
        report = ShadowReport.objects.filter(activation=activation).first()
        return Response(report_body(name, activation, report))


def report_body(name: str, activation: Activation, report: ShadowReport | None) -> dict[str, Any]:
    """A report as `ShadowReportSerializer` describes it."""
    tally = Tally.from_json(report.tally if report else {})
    shadow = report.version_number if report else (activation.routing.get("shadow") or {}).get("version")
    return {
        "model": name,
        "activation": activation.number,
        "version": activation.version_number,
        "shadow": shadow,
        "requests": tally.requests,
        "rows": tally.rows,
        "agreement": tally.agreeing_rows / tally.rows if tally.rows else None,
        "failed": tally.failed,
        "dropped": tally.dropped,
        "answered_mean_ms": _mean_ms(tally.answered_s, tally.requests),
        "shadow_mean_ms": _mean_ms(tally.shadow_s, tally.requests),
        "shadow_max_ms": tally.slowest_shadow_s * 1000 if tally.requests else None,
        "differences": {
            output: {"count": count, "mean": total / count, "max": most}
            for output, (count, total, most) in tally.differences.items()
        },
        "disagreements": tally.disagreements,
        "last_failure": tally.last_failure,
        "updated_at": report.updated_at if report else None,
    }


def _mean_ms(total_s: float, count: int) -> float | None:
    return total_s / count * 1000 if count else None


api_urlpatterns = [path("models/<str:name>/shadow", ShadowView.as_view(), name="model-shadow")]
