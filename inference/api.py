"""Predicting over HTTP. `predict` is a plain Django view: it is the hot path, and DRF costs more than a prediction."""

import uuid
from collections.abc import Mapping
from typing import Any

import orjson
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import get_object_or_404
from django.urls import path, reverse
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.errors import Malformed, PlatformError, TooLarge
from common.http import error_response
from inference import lanes, services
from inference.models import AsyncPrediction
from inference.predictions import deadline_of
from inference.routing import route
from inference.serializers import AsyncPredictionSerializer, FeedbackSerializer, prediction_body
from tenants.authentication import authenticate, caller_of
from tenants.job_api import await_end, wait_asked
from tenants.models import Scope


@csrf_exempt  # `authenticate` asks sessions for their CSRF token
def predict(request: HttpRequest, name: str | None = None) -> HttpResponse:
    """Predict rows by a model, or by the tenant's default model."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    try:
        caller = authenticate(request)
        caller.require(Scope.PREDICT)
        body = _body(request)
        found = route(name, body)
        if body.get("async"):
            return _accepted(services.submit_prediction(route=found, body=body, actor=caller.name))
        deadline = deadline_of(body, settings.PREDICTION_DEADLINE_S)
        answer = lanes.answer(found, body, deadline)
    except PlatformError as error:
        return error_response(error, request)
    return _json(answer)


def _body(request: HttpRequest) -> Mapping[str, Any]:
    """The request's JSON object.

    Raises:
        Malformed: it is not one. TooLarge: it is over the limit for requests that are held in memory.
    """
    try:
        body = orjson.loads(request.body)
    except RequestDataTooBig as error:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE >> 20
        raise TooLarge(f"A predict body has at most {limit} MiB; send fewer rows at once.") from error
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}.") from error
    if not isinstance(body, dict):
        raise Malformed("The body is a JSON object.")
    return body


def _accepted(prediction: AsyncPrediction) -> HttpResponse:
    response = _json(prediction_body(prediction), status=202)
    response["Location"] = reverse("prediction", args=[prediction.pk])
    return response


def _json(content: Any, status: int = 200) -> HttpResponse:
    return HttpResponse(orjson.dumps(content), content_type="application/json", status=status)


class PredictionView(APIView):
    """A prediction that was asked for with `async`."""

    scopes = {"GET": Scope.PREDICT}

    @extend_schema(responses=AsyncPredictionSerializer)
    def get(self, request: Request, prediction_id: uuid.UUID) -> Response:
        prediction = get_object_or_404(AsyncPrediction.objects.select_related("job"), pk=prediction_id)
        await_end(prediction.job, wait_asked(request))
        prediction.refresh_from_db(fields=["answer"])
        return Response(prediction_body(prediction))


class FeedbackView(APIView):
    """What turned out to be true."""

    scopes = {"POST": Scope.PREDICT}

    @extend_schema(request=FeedbackSerializer, responses={201: FeedbackSerializer})
    def post(self, request: Request) -> Response:
        serializer = FeedbackSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        services.give_feedback(actor=caller_of(request).name, **serializer.service_arguments())
        return Response(serializer.data, status=201)


api_urlpatterns = [
    path("predict", predict, name="predict-default"),
    path("models/<str:name>/predict", predict, name="predict"),
    path("predictions/<uuid:prediction_id>", PredictionView.as_view(), name="prediction"),
    path("feedback", FeedbackView.as_view(), name="feedback"),
]
