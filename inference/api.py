"""Predicting over HTTP. `predict` is a plain Django view: it is the hot path, and DRF costs more than a prediction."""

import uuid
from collections.abc import Mapping
from typing import Any, cast

import orjson
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.shortcuts import get_object_or_404
from django.urls import path, reverse, set_script_prefix
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.errors import Malformed, PlatformError, TooLarge
from common.http import error_body, error_response, json_response, request_id_of
from inference import bodies, lanes, services
from inference.models import AsyncPrediction
from inference.predictions import deadline_of, encoded
from inference.routing import Route, route
from inference.serializers import AsyncPredictionSerializer, FeedbackSerializer, prediction_body
from tenants.authentication import Caller, authenticate, caller_of
from tenants.idempotency import Idempotent, begin, fingerprint, forget, keep
from tenants.job_api import await_end, wait_asked
from tenants.models import Scope
from tenants.operations import REFUSED, WAIT


@csrf_exempt  # `authenticate` asks sessions for their CSRF token
def predict(request: HttpRequest, name: str | None = None) -> HttpResponse:
    """Predict rows by a model, or by the tenant's default model."""
    try:
        caller = authenticate(request)
        if request.method != "POST":
            return _not_allowed(request)
        caller.require(Scope.PREDICT)
        body = _body(request)
        found = route(name, body, request.META.get("HTTP_X_ROUTING_KEY"))
        if body.get("async"):
            return _accepted_once(request, caller, found, body)
        deadline = deadline_of(body, settings.PREDICTION_DEADLINE_S)
        answer = lanes.answer(found, body, deadline)
    except PlatformError as error:
        return error_response(error, request)
    return HttpResponse(encoded(answer), content_type="application/json")


def _body(request: HttpRequest) -> Mapping[str, Any]:
    """The request's checked body.

    Raises:
        TooLarge: it is over the limit for requests that are held in memory. Malformed, Invalid: see `bodies.parse`.
    """
    try:
        return bodies.parse(request.body)
    except RequestDataTooBig as error:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE >> 20
        raise TooLarge(f"A predict body has at most {limit} MiB; send fewer rows at once.") from error
    except UnreadablePostError as error:
        raise Malformed("The body could not be read to its end.") from error


def _accepted_once(request: HttpRequest, caller: Caller, found: Route, body: Mapping[str, Any]) -> HttpResponse:
    """202 with the prediction queued; a repeated Idempotency-Key gets the first one."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return _accepted(
            request, prediction_body(services.submit_prediction(route=found, body=body, actor=caller.name))
        )
    path = request.get_full_path_info()
    attempt = begin(key=key, caller=caller.identity, path=path, fingerprint=fingerprint(body))
    if attempt.status is not None:
        return _accepted(request, cast(dict[str, Any], attempt.body))
    try:
        content = prediction_body(services.submit_prediction(route=found, body=body, actor=caller.name))
    except BaseException:
        forget(attempt)
        raise
    keep(attempt, 202, content)
    return _accepted(request, content)


def _accepted(request: HttpRequest, content: Mapping[str, Any]) -> HttpResponse:
    response = _json(content, status=202)
    set_script_prefix(f"{request.META['SCRIPT_NAME']}/")  # the short way goes without Django's handler, which does it
    response["Location"] = reverse("prediction", urlconf=request.urlconf, args=[content["id"]])
    return response


def _not_allowed(request: HttpRequest) -> HttpResponse:
    message = f'Method "{request.method}" not allowed.'
    response = json_response(error_body("method_not_allowed", message, request_id_of(request)), 405)
    response["Allow"] = "POST"
    return response


def _json(content: Any, status: int = 200) -> HttpResponse:
    return HttpResponse(orjson.dumps(content), content_type="application/json", status=status)


class PredictionView(APIView):
    """A prediction that was asked for with `async`."""

    scopes = {"GET": Scope.PREDICT}

    @extend_schema(parameters=[WAIT], responses=AsyncPredictionSerializer)
    def get(self, request: Request, prediction_id: uuid.UUID) -> Response:
        """Show it, with its answer once it has one; `wait` waits for that."""
        prediction = get_object_or_404(AsyncPrediction.objects.select_related("job"), pk=prediction_id)
        await_end(prediction.job, wait_asked(request))
        prediction.refresh_from_db(fields=["answer"])
        return Response(prediction_body(prediction))


class PredictionCancelView(APIView):
    """Ending a prediction that was asked for with `async`."""

    scopes = {"POST": Scope.PREDICT}

    @extend_schema(request=None, responses={200: AsyncPredictionSerializer, 409: REFUSED})
    def post(self, request: Request, prediction_id: uuid.UUID) -> Response:
        """End it whether it is queued or running; 409 where it has ended already."""
        prediction = get_object_or_404(AsyncPrediction.objects.select_related("job"), pk=prediction_id)
        prediction.job.cancel()
        return Response(prediction_body(prediction))


class FeedbackView(Idempotent):
    """What turned out to be true."""

    scopes = {"POST": Scope.PREDICT}

    @extend_schema(request=FeedbackSerializer, responses={201: FeedbackSerializer})
    def post(self, request: Request) -> Response:
        """Keep what turned out to be true of one row of a prediction; 409 where another truth was given before."""
        serializer = FeedbackSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        services.give_feedback(actor=caller_of(request).name, **serializer.service_arguments())
        return Response(serializer.data, status=201)


api_urlpatterns = [
    path("predict", predict, name="predict-default"),
    path("models/<str:name>/predict", predict, name="predict"),
    path("predictions/<uuid:prediction_id>", PredictionView.as_view(), name="prediction"),
    path("predictions/<uuid:prediction_id>/cancel", PredictionCancelView.as_view(), name="prediction-cancel"),
    path("feedback", FeedbackView.as_view(), name="feedback"),
]
