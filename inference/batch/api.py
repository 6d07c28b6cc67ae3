"""Batch jobs over HTTP."""

import uuid
from typing import Any

from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.urls import path, reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.http import JsonParser, accepted
from common.queries import text_asked
from inference.batch import services
from inference.batch.serializers import BatchJobSerializer, BatchRequestSerializer, BatchUploadSerializer
from inference.models import BatchJob
from inference.routing import route
from models_registry.downloads import send_file
from models_registry.quota import check_announced
from models_registry.stored_tables import StoredTable
from models_registry.uploading import Uploading
from tenants.authentication import caller_of
from tenants.idempotency import Idempotent
from tenants.job_api import await_end, wait_asked
from tenants.models import JobState, Scope
from tenants.operations import LOCATION, REFUSED, WAIT
from tenants.serializers import checked

MULTIPART = "multipart/form-data"
SELECTORS = ("version", "alias")
STATE = OpenApiParameter("state", enum=JobState.values, description="Only those in this state.")
MODEL = OpenApiParameter("model", str, description="Only those of this model.")


class BatchJobsView(Uploading, Idempotent, ListAPIView[BatchJob]):
    """The tenant's batch jobs."""

    scopes = {"POST": Scope.WRITE}
    serializer_class = BatchJobSerializer
    parser_classes = (JsonParser, MultiPartParser)
    order_fields = ("-created_at",)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method == "POST":  # before the body is read
            check_announced(int(request.META.get("CONTENT_LENGTH") or 0))

    def get_queryset(self) -> QuerySet[BatchJob]:
        batches = BatchJob.objects.select_related("job", "result").defer("parts")
        if state := text_asked(self.request, "state", JobState.values):
            batches = batches.filter(job__state=state)
        if model := text_asked(self.request, "model"):
            batches = batches.filter(model_name=model)
        return batches

    @extend_schema(parameters=[STATE, MODEL])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    @extend_schema(
        parameters=[LOCATION],
        request={"application/json": BatchRequestSerializer, MULTIPART: BatchUploadSerializer},
        responses={202: BatchJobSerializer, 404: REFUSED, 409: REFUSED, 413: REFUSED, 422: REFUSED, 429: REFUSED},
    )
    def post(self, request: Request) -> Response:
        """Predict every row of a table: of a dataset (JSON), or of a file (multipart)."""
        is_upload = (request.content_type or "").startswith(MULTIPART)
        asked = checked(BatchUploadSerializer if is_upload else BatchRequestSerializer, request.data)
        found = route(asked["model"], {name: asked[name] for name in SELECTORS if name in asked})
        batch = services.submit_batch(
            route=found,
            table=_uploaded(asked) if is_upload else services.table_of_dataset(asked["dataset"]),
            probabilities=asked["probabilities"],
            actor=caller_of(request).name,
        )
        return accepted(BatchJobSerializer(batch).data, reverse("batch-job", args=[batch.pk]))


class BatchJobView(APIView):
    """One batch job."""

    @extend_schema(responses=BatchJobSerializer, parameters=[WAIT])
    def get(self, request: Request, batch_id: uuid.UUID) -> Response:
        """How far it is; with `wait`, once it has ended, or after so many seconds."""
        batch = _batch(batch_id)
        if (wait_s := wait_asked(request)) and not batch.job.has_ended:
            await_end(batch.job, wait_s)
            batch = _batch(batch_id)
        return Response(BatchJobSerializer(batch).data)


class BatchCancelView(APIView):
    """Ending a batch job."""

    scopes = {"POST": Scope.WRITE}

    @extend_schema(request=None, responses={200: BatchJobSerializer, 409: REFUSED})
    def post(self, request: Request, batch_id: uuid.UUID) -> Response:
        """End it whether it is queued or running; 409 where it has ended already."""
        batch = _batch(batch_id)
        services.cancel_batch(batch=batch, actor=caller_of(request).name)
        return Response(BatchJobSerializer(batch).data)


class BatchResultView(APIView):
    """What a batch job came to."""

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY, 409: REFUSED})
    def get(self, request: Request, batch_id: uuid.UUID) -> StreamingHttpResponse:
        """The table with its predictions, in the format that it came in; 409 while there is none."""
        return send_file(services.result_file(_batch(batch_id)))


def _uploaded(asked: dict[str, Any]) -> StoredTable:
    file = asked["file"]
    return services.store_table(file, size_bytes=file.size, file_name=file.name, format_name=asked.get("format", ""))


def _batch(batch_id: uuid.UUID) -> BatchJob:
    return get_object_or_404(BatchJob.objects.select_related("job", "result").defer("parts"), pk=batch_id)


api_urlpatterns = [
    path("batch-jobs", BatchJobsView.as_view(), name="batch-jobs"),
    path("batch-jobs/<uuid:batch_id>", BatchJobView.as_view(), name="batch-job"),
    path("batch-jobs/<uuid:batch_id>/cancel", BatchCancelView.as_view(), name="batch-job-cancel"),
    path("batch-jobs/<uuid:batch_id>/result", BatchResultView.as_view(), name="batch-job-result"),
]
