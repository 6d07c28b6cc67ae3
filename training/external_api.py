"""Runs that clients execute somewhere else and log here, over HTTP. They are read as all runs are."""

import uuid
from typing import Any

from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.urls import path as route
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.errors import NotFound
from models_registry.api import BINARY, AnyAccept
from models_registry.downloads import send_file
from models_registry.metadata import storable_fault
from models_registry.quota import check_announced
from models_registry.uploading import Uploading
from tenants.authentication import caller_of
from tenants.idempotency import Idempotent
from tenants.models import Scope
from tenants.operations import LOCATION, REFUSED
from training.external_runs import begin_run, keep_artifact, log_to_run, update_run
from training.external_serializers import (
    ArtifactUploadSerializer,
    ExternalRunChangeSerializer,
    ExternalRunSerializer,
    LoggedSerializer,
    RunArtifactSerializer,
    RunInputsSerializer,
)
from training.models import HEAVY, Run, RunArtifact, RunKind
from training.serializers import RunSerializer


class ExternalRunsView(Idempotent, APIView):
    """Runs that clients log."""

    scopes = {"POST": Scope.WRITE}

    @extend_schema(parameters=[LOCATION], request=ExternalRunSerializer, responses={201: RunSerializer})
    def post(self, request: Request) -> Response:
        """Begin a run that is executed somewhere else."""
        asked = ExternalRunSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        said = asked.validated_data
        run = begin_run(
            name=said.get("name", ""),
            experiment=said.get("experiment", ""),
            model=said.get("model", ""),
            started_at=said.get("started_at"),
            logged=asked.logged(),
            actor=caller_of(request).name,
        )
        return Response(RunSerializer(run).data, status=201, headers={"Location": reverse("run", args=[run.pk])})


class ExternalRunView(APIView):
    """One of them."""

    scopes = {"PATCH": Scope.WRITE}

    @extend_schema(request=ExternalRunChangeSerializer, responses=RunSerializer)
    def patch(self, request: Request, external_id: uuid.UUID) -> Response:
        """Name it, end it with `succeeded`, `failed` or `cancelled`, or let it go on."""
        asked = ExternalRunChangeSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        run = update_run(run=_run(external_id), changes=asked.validated_data, actor=caller_of(request).name)
        return Response(RunSerializer(run).data)


class ExternalRunLogView(Idempotent, APIView):
    """What happens in one of them."""

    scopes = {"POST": Scope.WRITE}

    @extend_schema(request=LoggedSerializer, responses={204: None, 409: REFUSED})
    def post(self, request: Request, external_id: uuid.UUID) -> Response:
        """Log parameters, metrics, tags and datasets, all of it or nothing; a parameter keeps its first value."""
        run, asked = _run(external_id), LoggedSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        log_to_run(run=run, logged=asked.logged())
        return Response(status=204)


class ExternalRunInputsView(APIView):
    """The datasets that one of them used."""

    @extend_schema(responses=RunInputsSerializer)
    def get(self, request: Request, external_id: uuid.UUID) -> Response:
        return Response({"results": get_object_or_404(_external().only("inputs"), pk=external_id).inputs, "next": None})


class ExternalRunArtifactsView(Uploading, Idempotent, ListAPIView[RunArtifact]):
    """The files of one of them."""

    scopes = {"POST": Scope.WRITE}
    serializer_class = RunArtifactSerializer
    parser_classes = (MultiPartParser,)
    order_fields = ("path", "created_at")

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method == "POST":  # before the body is read
            check_announced(int(request.META.get("CONTENT_LENGTH") or 0))

    def get_queryset(self) -> QuerySet[RunArtifact]:
        return _run(self.kwargs["external_id"]).artifacts.select_related("bundle")

    @extend_schema(
        parameters=[LOCATION],
        request={"multipart/form-data": ArtifactUploadSerializer},
        responses={201: RunArtifactSerializer, 409: REFUSED},
    )
    def post(self, request: Request, external_id: uuid.UUID) -> Response:
        """Keep a file at `path`; what was there before is replaced."""
        run, sent = _run(external_id), ArtifactUploadSerializer(data=request.data)
        sent.is_valid(raise_exception=True)
        file = sent.validated_data["file"]
        path = sent.validated_data.get("path") or file.name
        kept = keep_artifact(run=run, path=path, file=file, size_bytes=file.size)
        location = reverse("external-run-artifact", args=[run.pk, kept.path])
        return Response(RunArtifactSerializer(kept).data, status=201, headers={"Location": location})


class ExternalRunArtifactView(APIView):
    """One of the files."""

    scopes = {"DELETE": Scope.WRITE}
    content_negotiation_class = AnyAccept

    @extend_schema(responses=BINARY)
    def get(self, request: Request, external_id: uuid.UUID, path: str) -> StreamingHttpResponse:
        """Download it."""
        return send_file(_artifact(external_id, path).bundle.files.select_related("blob").get())

    @extend_schema(responses={204: None})
    def delete(self, request: Request, external_id: uuid.UUID, path: str) -> Response:
        """Delete it."""
        _artifact(external_id, path).delete()
        return Response(status=204)


def _external() -> QuerySet[Run]:
    return Run.objects.filter(kind=RunKind.EXTERNAL, deleted_at=None)


def _run(external_id: uuid.UUID) -> Run:
    found = _external().select_related("experiment", "dataset_version__dataset", "version").defer(*HEAVY)
    return get_object_or_404(found, pk=external_id)


def _artifact(external_id: uuid.UUID, path: str) -> RunArtifact:
    artifacts = _run(external_id).artifacts.select_related("bundle")
    found = None if storable_fault(path) else artifacts.filter(path=path).first()
    if found is None:
        raise NotFound(f"There is no file '{path[:100]}' in this run.")
    return found


external_urlpatterns = [
    route("runs/external", ExternalRunsView.as_view(), name="external-runs"),
    route("runs/external/<uuid:external_id>", ExternalRunView.as_view(), name="external-run"),
    route("runs/external/<uuid:external_id>/log", ExternalRunLogView.as_view(), name="external-run-log"),
    route("runs/external/<uuid:external_id>/inputs", ExternalRunInputsView.as_view(), name="external-run-inputs"),
    route(
        "runs/external/<uuid:external_id>/artifacts", ExternalRunArtifactsView.as_view(), name="external-run-artifacts"
    ),
    route(
        "runs/external/<uuid:external_id>/artifacts/<path:path>",
        ExternalRunArtifactView.as_view(),
        name="external-run-artifact",
    ),
]
