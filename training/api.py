"""Datasets, trainers and experiments over HTTP; what runs is in `training.runs_api`."""

from typing import Any

from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.shortcuts import get_object_or_404
from django.urls import path, reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.errors import NotFound
from common.queries import whole_number_asked
from models_registry.quota import ENVELOPE_BYTES, check_announced
from models_registry.uploading import Uploading
from runtimes.profiles import Profile
from runtimes.trainers import TRAINERS
from tenants.authentication import caller_of
from tenants.idempotency import Idempotent
from tenants.job_api import wait_asked
from tenants.models import Scope
from tenants.operations import LOCATION, REFUSED, WAIT
from training import services
from training.external_api import external_urlpatterns
from training.models import Dataset, DatasetVersion, Experiment
from training.run_requests import METRICS
from training.runs_api import runs_urlpatterns
from training.serializers import (
    DatasetSerializer,
    DatasetUploadSerializer,
    DatasetVersionSerializer,
    DatasetVersionSummarySerializer,
    ExperimentSerializer,
    PreviewSerializer,
    TrainersSerializer,
    described,
)

DEFAULT_PREVIEW_ROWS = 20
MOST_PREVIEW_ROWS = 100
ROWS = OpenApiParameter(
    "rows",
    {"type": "integer", "minimum": 1, "maximum": MOST_PREVIEW_ROWS, "default": DEFAULT_PREVIEW_ROWS},
    description="How many rows.",
)


class DatasetsView(Uploading, Idempotent, ListAPIView[Dataset]):
    """The tenant's datasets."""

    scopes = {"POST": Scope.WRITE}
    serializer_class = DatasetSerializer
    parser_classes = (MultiPartParser,)
    order_fields = ("name", "created_at")

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method == "POST":  # before the body is read
            length = int(request.META.get("CONTENT_LENGTH") or 0)
            services.check_size(length - ENVELOPE_BYTES)
            check_announced(length)

    def get_queryset(self) -> QuerySet[Dataset]:
        newest = DatasetVersion.objects.filter(dataset=OuterRef("pk")).order_by("-created_at", "-pk")
        return Dataset.objects.annotate(
            version_count=Count("versions"), newest_digest=Subquery(newest.values("digest")[:1])
        )

    @extend_schema(
        parameters=[LOCATION],
        request={"multipart/form-data": DatasetUploadSerializer},
        responses={200: DatasetVersionSerializer, 201: DatasetVersionSerializer},
    )
    def post(self, request: Request) -> Response:
        """Keep a table as a version of a dataset: 201, or 200 where the dataset has these very bytes already.

        A profile of it is made afterwards; a Parquet file can be used once that is there.
        """
        upload = DatasetUploadSerializer(data=request.data)
        upload.is_valid(raise_exception=True)
        file = upload.validated_data["file"]
        version, is_new = services.upload_dataset(
            name=upload.validated_data["name"],
            file=file,
            size_bytes=file.size,
            file_name=file.name,
            actor=caller_of(request).name,
        )
        location = reverse("dataset-version", args=[version.dataset.name, version.digest])
        body = DatasetVersionSerializer(version).data
        return Response(body, status=201 if is_new else 200, headers={"Location": location})


class DatasetView(APIView):
    """One dataset."""

    scopes = {"DELETE": Scope.WRITE}

    @extend_schema(responses=DatasetVersionSerializer)
    def get(self, request: Request, name: str) -> Response:
        """Its newest version."""
        newest = _versions(name).order_by("-created_at", "-pk").first()
        if newest is None:
            raise NotFound(f"The dataset '{name}' has no version.")
        return Response(DatasetVersionSerializer(newest).data)

    @extend_schema(responses={204: None, 409: REFUSED})
    def delete(self, request: Request, name: str) -> Response:
        """Delete it with all its versions; 409 where a run used one."""
        services.delete_dataset(dataset=_dataset(name), actor=caller_of(request).name)
        return Response(status=204)


class DatasetVersionsView(ListAPIView[DatasetVersion]):
    """The versions of a dataset."""

    serializer_class = DatasetVersionSummarySerializer
    order_fields = ("-created_at", "size_bytes", "row_count")

    def get_queryset(self) -> QuerySet[DatasetVersion]:
        return _versions(self.kwargs["name"]).defer("columns")


class DatasetVersionView(APIView):
    """One version of a dataset."""

    scopes = {"DELETE": Scope.WRITE}

    @extend_schema(responses=DatasetVersionSerializer, parameters=[WAIT])
    def get(self, request: Request, name: str, digest: str) -> Response:
        """The version; with `wait`, once its profile is made, or after so many seconds."""
        version = _version(name, digest)
        if wait_s := wait_asked(request):
            services.await_profile(version, wait_s)
        return Response(DatasetVersionSerializer(version).data)

    @extend_schema(responses={204: None, 409: REFUSED})
    def delete(self, request: Request, name: str, digest: str) -> Response:
        """Delete it; 409 where a run used it."""
        services.delete_dataset_version(version=_version(name, digest), actor=caller_of(request).name)
        return Response(status=204)


class DatasetPreviewView(APIView):
    """The first rows of a version of a dataset."""

    @extend_schema(responses={200: PreviewSerializer, 409: REFUSED}, parameters=[ROWS])
    def get(self, request: Request, name: str, digest: str) -> Response:
        limit = whole_number_asked(request, "rows", DEFAULT_PREVIEW_ROWS, MOST_PREVIEW_ROWS)
        return Response(PreviewSerializer(services.preview(_version(name, digest), limit)).data)


class DatasetProfileView(APIView):
    """What is in the columns of a version of a dataset."""

    @extend_schema(
        responses={200: described(Profile), 409: REFUSED},
        parameters=[WAIT],
    )
    def get(self, request: Request, name: str, digest: str) -> Response:
        """Its rows, and of each column type, missing and distinct values, quantiles and the most frequent values."""
        version = _version(name, digest)
        if wait_s := wait_asked(request):
            services.await_profile(version, wait_s)
        return Response(services.profile_of(version).model_dump())


class TrainersView(APIView):
    """What a run can be made with."""

    @extend_schema(responses=TrainersSerializer)
    def get(self, request: Request) -> Response:
        trainers = [
            {
                "name": name,
                "title": trainer.title,
                "task": trainer.task,
                "params": trainer.Params.model_json_schema(),
                "metrics": METRICS[trainer.task],
            }
            for name, trainer in sorted(TRAINERS.items())
        ]
        return Response({"results": trainers, "next": None})


class ExperimentsView(Idempotent, ListAPIView[Experiment]):
    """The tenant's experiments."""

    scopes = {"POST": Scope.WRITE}
    serializer_class = ExperimentSerializer
    order_fields = ("name", "created_at")

    def get_queryset(self) -> QuerySet[Experiment]:
        return Experiment.objects.annotate(run_count=Count("runs"))

    @extend_schema(request=ExperimentSerializer, responses={201: ExperimentSerializer})
    def post(self, request: Request) -> Response:
        serializer = ExperimentSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        experiment = services.create_experiment(name=serializer.validated_data["name"], actor=caller_of(request).name)
        return Response(ExperimentSerializer(experiment).data, status=201)


def _dataset(name: str) -> Dataset:
    return get_object_or_404(Dataset, name=name)


def _versions(name: str) -> QuerySet[DatasetVersion]:
    return DatasetVersion.objects.filter(dataset=_dataset(name)).select_related("dataset")


def _version(name: str, digest: str) -> DatasetVersion:
    found = DatasetVersion.objects.filter(dataset__name=name, digest=digest)
    return get_object_or_404(found.select_related("dataset", "bundle"))


api_urlpatterns = [
    *runs_urlpatterns,
    *external_urlpatterns,
    path("datasets", DatasetsView.as_view(), name="datasets"),
    path("datasets/<str:name>", DatasetView.as_view(), name="dataset"),
    path("datasets/<str:name>/versions", DatasetVersionsView.as_view(), name="dataset-versions"),
    path("datasets/<str:name>/versions/<str:digest>", DatasetVersionView.as_view(), name="dataset-version"),
    path("datasets/<str:name>/versions/<str:digest>/preview", DatasetPreviewView.as_view(), name="dataset-preview"),
    path("datasets/<str:name>/versions/<str:digest>/profile", DatasetProfileView.as_view(), name="dataset-profile"),
    path("trainers", TrainersView.as_view(), name="trainers"),
    path("experiments", ExperimentsView.as_view(), name="experiments"),
]
