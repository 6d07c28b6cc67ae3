"""Datasets, trainers, runs and experiments over HTTP."""

import uuid
from collections.abc import Mapping
from typing import Any

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest, QueryDict
from django.shortcuts import get_object_or_404
from django.urls import path, reverse
from django.utils.datastructures import MultiValueDict
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.errors import Invalid, NotFound
from common.http import accepted
from common.queries import text_asked, whole_number_asked
from models_registry.quota import ENVELOPE_BYTES, check_announced
from models_registry.spooling import SpoolingUploadHandler
from runtimes.trainers import TRAINERS
from tenants.authentication import caller_of
from tenants.idempotency import Idempotent
from tenants.job_api import wait_asked
from tenants.models import JobState, Scope
from tenants.operations import LOCATION, REFUSED, WAIT
from training import services
from training.comparison import compare
from training.models import HEAVY, LOG_CHARS, Dataset, DatasetVersion, Experiment, Run, RunMetric
from training.serializers import (
    ComparisonSerializer,
    DatasetSerializer,
    DatasetUploadSerializer,
    DatasetVersionSerializer,
    DatasetVersionSummarySerializer,
    ExperimentSerializer,
    LogSerializer,
    MetricSerializer,
    PreviewSerializer,
    RunRequestSerializer,
    RunSerializer,
    TrainersSerializer,
)

DEFAULT_PREVIEW_ROWS = 20
MOST_PREVIEW_ROWS = 100
MOST_COMPARED = 20
ROWS = OpenApiParameter(
    "rows",
    {"type": "integer", "minimum": 1, "maximum": MOST_PREVIEW_ROWS, "default": DEFAULT_PREVIEW_ROWS},
    description="How many rows.",
)
IDS = OpenApiParameter(
    "ids",
    {
        "type": "array",
        "items": {"type": "string", "format": "uuid"},
        "minItems": 2,
        "maxItems": MOST_COMPARED,
        "uniqueItems": True,
    },
    required=True,
    explode=False,
    description="The runs to compare, parted by commas.",
)


class DatasetsView(Idempotent, ListAPIView[Dataset]):
    """The tenant's datasets."""

    scopes = {"POST": Scope.WRITE}
    serializer_class = DatasetSerializer
    parser_classes = (MultiPartParser,)
    order_fields = ("name", "created_at")

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        # A session's CSRF check looks for its token in request.POST before it looks into the header, which would read
        # the body before anybody was let in. The files wait on the local disk without a name once they are read.
        if request.method == "POST":
            request.upload_handlers = [SpoolingUploadHandler(request)]
            request._post, request._files = QueryDict(), MultiValueDict()  # type: ignore[attr-defined]
        return super().initialize_request(request, *args, **kwargs)

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
        """Keep a CSV file as a version of a dataset: 201, or 200 where the dataset has these very bytes already."""
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

    @extend_schema(responses=DatasetVersionSerializer)
    def get(self, request: Request, name: str, digest: str) -> Response:
        return Response(DatasetVersionSerializer(_version(name, digest)).data)

    @extend_schema(responses={204: None, 409: REFUSED})
    def delete(self, request: Request, name: str, digest: str) -> Response:
        """Delete it; 409 where a run used it."""
        services.delete_dataset_version(version=_version(name, digest), actor=caller_of(request).name)
        return Response(status=204)


class DatasetPreviewView(APIView):
    """The first rows of a version of a dataset."""

    @extend_schema(responses=PreviewSerializer, parameters=[ROWS])
    def get(self, request: Request, name: str, digest: str) -> Response:
        limit = whole_number_asked(request, "rows", DEFAULT_PREVIEW_ROWS, MOST_PREVIEW_ROWS)
        return Response(PreviewSerializer(services.preview(_version(name, digest), limit)).data)


class TrainersView(APIView):
    """What a run can be made with."""

    @extend_schema(responses=TrainersSerializer)
    def get(self, request: Request) -> Response:
        trainers = [
            {"name": name, "title": trainer.title, "task": trainer.task, "params": trainer.Params.model_json_schema()}
            for name, trainer in sorted(TRAINERS.items())
        ]
        return Response({"results": trainers, "next": None})


RUN_FILTERS: Mapping[str, str] = {"experiment": "experiment__name", "model": "model_name", "trainer": "trainer"}


class RunsView(Idempotent, ListAPIView[Run]):
    """The tenant's runs."""

    scopes = {"POST": Scope.WRITE}
    serializer_class = RunSerializer
    order_fields = ("-created_at", "trainer")

    def get_queryset(self) -> QuerySet[Run]:
        runs = _runs()
        for name, lookup in RUN_FILTERS.items():
            if wanted := text_asked(self.request, name):
                runs = runs.filter(**{lookup: wanted})
        if state := text_asked(self.request, "state", JobState.values):
            runs = runs.filter(Q(job__state=state) | Q(job=None, external_state=state))
        return runs

    @extend_schema(
        parameters=[
            OpenApiParameter("state", str, enum=JobState.values, description="Only runs in this state."),
            *(OpenApiParameter(name, str, description=f"Only runs of this {name}.") for name in RUN_FILTERS),
        ]
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them, the newest first, or as `order_by` says."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        parameters=[LOCATION],
        request=RunRequestSerializer,
        responses={202: RunSerializer, 429: REFUSED},
    )
    def post(self, request: Request) -> Response:
        """Queue a run; `activate_if` takes the scope `admin`, as activating does."""
        serializer = RunRequestSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked, caller = serializer.run_request(), caller_of(request)
        if asked.activate_if is not None:
            caller.require(Scope.ADMIN)
        run = services.submit_run(request=asked, actor=caller.name)
        return accepted(RunSerializer(run).data, reverse("run", args=[run.pk]))


class RunView(APIView):
    """One run."""

    @extend_schema(responses=RunSerializer, parameters=[WAIT])
    def get(self, request: Request, run_id: uuid.UUID) -> Response:
        """The run; with `wait`, once nothing about it changes any more, or after so many seconds."""
        run = get_object_or_404(_runs(), pk=run_id)
        if wait_s := wait_asked(request):
            services.await_run(run, wait_s)
            run = get_object_or_404(_runs(), pk=run_id)
        return Response(RunSerializer(run).data)


class RunCancelView(APIView):
    """Ending a run."""

    scopes = {"POST": Scope.WRITE}

    @extend_schema(request=None, responses={200: RunSerializer, 409: REFUSED})
    def post(self, request: Request, run_id: uuid.UUID) -> Response:
        """End it whether it is queued or running; 409 where it has ended already."""
        run = get_object_or_404(_runs(), pk=run_id)
        services.cancel_run(run=run, actor=caller_of(request).name)
        return Response(RunSerializer(run).data)


class RunMetricsView(ListAPIView[RunMetric]):
    """The history of a run's metrics."""

    serializer_class = MetricSerializer
    order_fields = ("step", "at")

    def get_queryset(self) -> QuerySet[RunMetric]:
        history = get_object_or_404(Run, pk=self.kwargs["run_id"]).metric_history.all()
        key = text_asked(self.request, "key")
        return history.filter(key=key) if key else history

    @extend_schema(parameters=[OpenApiParameter("key", str, description="Only this metric.")])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them by step, or as `order_by` says."""
        return super().get(request, *args, **kwargs)


class RunLogsView(APIView):
    """What happened in a run, a line each."""

    @extend_schema(responses=LogSerializer)
    def get(self, request: Request, run_id: uuid.UUID) -> Response:
        log = get_object_or_404(Run.objects.only("log"), pk=run_id).log
        is_cut = len(log) >= LOG_CHARS
        return Response({"lines": log.splitlines()[1 if is_cut else 0 :], "is_cut": is_cut})


class RunComparisonView(APIView):
    """Runs side by side."""

    @extend_schema(responses={200: ComparisonSerializer, 404: REFUSED}, parameters=[IDS])
    def get(self, request: Request) -> Response:
        """Compare the runs in `ids`, which are parted by commas."""
        ids = _ids(request)
        found = {run.pk: run for run in _runs().filter(pk__in=ids)}
        if missing := [str(run_id) for run_id in ids if run_id not in found]:
            raise NotFound(f"There is no run {', '.join(missing)}.")
        return Response(ComparisonSerializer(compare([found[run_id] for run_id in ids])).data)


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


def _runs() -> QuerySet[Run]:
    """Runs with all that their JSON shows, in one query."""
    return Run.objects.select_related("job", "experiment", "dataset_version__dataset", "version").defer(*HEAVY)


def _dataset(name: str) -> Dataset:
    return get_object_or_404(Dataset, name=name)


def _versions(name: str) -> QuerySet[DatasetVersion]:
    return DatasetVersion.objects.filter(dataset=_dataset(name)).select_related("dataset")


def _version(name: str, digest: str) -> DatasetVersion:
    found = DatasetVersion.objects.filter(dataset__name=name, digest=digest)
    return get_object_or_404(found.select_related("dataset", "bundle"))


def _ids(request: Request) -> list[uuid.UUID]:
    raw = [part for part in request.query_params.get("ids", "").split(",") if part]
    try:
        ids = list(dict.fromkeys(uuid.UUID(part.strip()) for part in raw))
    except ValueError as error:
        raise Invalid("ids are the ids of runs, parted by commas.", fields={"ids": "not an id"}) from error
    if not 2 <= len(ids) <= MOST_COMPARED:
        raise Invalid(f"Name 2 to {MOST_COMPARED} runs.", fields={"ids": f"{len(ids)} runs"})
    return ids


api_urlpatterns = [
    path("datasets", DatasetsView.as_view(), name="datasets"),
    path("datasets/<str:name>", DatasetView.as_view(), name="dataset"),
    path("datasets/<str:name>/versions", DatasetVersionsView.as_view(), name="dataset-versions"),
    path("datasets/<str:name>/versions/<str:digest>", DatasetVersionView.as_view(), name="dataset-version"),
    path("datasets/<str:name>/versions/<str:digest>/preview", DatasetPreviewView.as_view(), name="dataset-preview"),
    path("trainers", TrainersView.as_view(), name="trainers"),
    path("runs", RunsView.as_view(), name="runs"),
    path("runs/compare", RunComparisonView.as_view(), name="run-comparison"),
    path("runs/<uuid:run_id>", RunView.as_view(), name="run"),
    path("runs/<uuid:run_id>/cancel", RunCancelView.as_view(), name="run-cancel"),
    path("runs/<uuid:run_id>/metrics", RunMetricsView.as_view(), name="run-metrics"),
    path("runs/<uuid:run_id>/logs", RunLogsView.as_view(), name="run-logs"),
    path("experiments", ExperimentsView.as_view(), name="experiments"),
]
