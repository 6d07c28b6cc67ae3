"""Runs, searches and evaluations over HTTP."""

import uuid
from collections.abc import Mapping
from typing import Any

from django.db.models import FloatField, Q, QuerySet
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.shortcuts import get_object_or_404
from django.urls import path, reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.errors import Invalid, NotFound
from common.http import KeysetPagination, accepted
from common.queries import text_asked
from models_registry.models import ModelVersion
from models_registry.uploading import Uploading
from runtimes.measured import Evaluation
from tenants.authentication import caller_of
from tenants.idempotency import Idempotent
from tenants.job_api import wait_asked
from tenants.models import JobState, Scope
from tenants.operations import LOCATION, REFUSED, WAIT
from training import services
from training.comparison import MOST_COMPARED, asked_ids, compare
from training.models import CUSTOM, HEAVY, LOG_CHARS, Purpose, Run, RunMetric
from training.programs import keep_program
from training.serializers import (
    ComparisonSerializer,
    CustomRunSerializer,
    EvaluationRequestSerializer,
    LogSerializer,
    MetricSerializer,
    RunRequestSerializer,
    RunSerializer,
    SearchRequestSerializer,
    SearchSerializer,
    described,
)

MOST_METRIC_CHARS = 250
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


RUN_FILTERS: Mapping[str, str] = {
    "experiment": "experiment__name",
    "model": "model_name",
    "trainer": "trainer",
    "dataset": "dataset_version__dataset__name",
    "digest": "dataset_version__digest",
    "created_by": "created_by",
}
BY_METRIC = "metrics."


class RunPagination(KeysetPagination):
    """Lists of runs can be ordered by any metric, too."""

    def get_ordering(self, request: Any, queryset: Any, view: Any) -> tuple[str, ...]:
        wanted = request.query_params.get("order_by", "")
        if wanted.removeprefix("-").startswith(BY_METRIC):
            sign = "-" if wanted.startswith("-") else ""
            return f"{sign}metric_value", f"{sign}{self.tie_breaker}"
        return super().get_ordering(request, queryset, view)


class RunsView(Idempotent, ListAPIView[Run]):
    """The tenant's runs."""

    scopes = {"POST": Scope.WRITE}
    serializer_class = RunSerializer
    order_fields = ("-created_at", "trainer")
    pagination_class = RunPagination

    def get_queryset(self) -> QuerySet[Run]:
        runs = _by_metric(_runs(), self.request.query_params.get("order_by", ""))
        for name, lookup in RUN_FILTERS.items():
            if wanted := text_asked(self.request, name):
                runs = runs.filter(**{lookup: wanted})
        if state := text_asked(self.request, "state", JobState.values):
            runs = _in_state(runs, state)
        if purpose := text_asked(self.request, "purpose", Purpose.values):
            runs = runs.filter(purpose=purpose)
        if "parent" in self.request.query_params:
            runs = runs.filter(parent=_id(text_asked(self.request, "parent"), "parent"))
        return runs

    @extend_schema(
        parameters=[
            OpenApiParameter("state", str, enum=JobState.values, description="Only runs in this state."),
            OpenApiParameter("purpose", str, enum=Purpose.values, description="Only runs for this."),
            OpenApiParameter("parent", {"type": "string", "format": "uuid"}, description="Only those of this search."),
            *(OpenApiParameter(name, str, description=f"Only runs of this {name}.") for name in RUN_FILTERS),
        ]
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them, the newest first, or as `order_by` says.

        Beside its values, `metrics.NAME` and `-metrics.NAME` order by a metric, and leave out runs without it.
        """
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


class CustomRunsView(Uploading, Idempotent, APIView):
    """Runs of programs of one's own."""

    scopes = {"POST": Scope.WRITE}
    parser_classes = (MultiPartParser,)

    @extend_schema(
        parameters=[LOCATION],
        request={"multipart/form-data": CustomRunSerializer},
        responses={202: RunSerializer, 429: REFUSED},
    )
    def post(self, request: Request) -> Response:
        """Queue a run of the program in `code`, a zip with `train.py`; `run` is the JSON of a run."""
        sent = CustomRunSerializer(data=request.data)
        sent.is_valid(raise_exception=True)
        run = sent.validated_data["run"]
        if not isinstance(run, dict):
            raise Invalid("`run` is a JSON object.", fields={"run": "not an object"})
        serializer = RunRequestSerializer(data={"trainer": CUSTOM, **run})
        serializer.is_valid(raise_exception=True)
        asked, caller = serializer.run_request(), caller_of(request)
        if asked.activate_if is not None:
            caller.require(Scope.ADMIN)
        code = keep_program(sent.validated_data["code"])
        made = services.submit_run(request=asked, actor=caller.name, code=code)
        return accepted(RunSerializer(made).data, reverse("run", args=[made.pk]))


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


class RunEvaluationView(APIView):
    """All that was measured in a run."""

    @extend_schema(responses={200: described(Evaluation)})
    def get(self, request: Request, run_id: uuid.UUID) -> Response:
        """Metrics, folds, confusion matrix, residuals and the columns' importance, as far as there are any."""
        found = get_object_or_404(Run.objects.only("evaluation"), pk=run_id).evaluation
        return Response(Evaluation.model_validate(found or {}).model_dump())


class RunCancelView(APIView):
    """Ending a run."""

    scopes = {"POST": Scope.WRITE}

    @extend_schema(request=None, responses={200: RunSerializer, 409: REFUSED})
    def post(self, request: Request, run_id: uuid.UUID) -> Response:
        """End it whether it is queued or running, a search with all its trials; 409 where it has ended already."""
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
        ids = asked_ids(request.query_params.get("ids", ""))
        found = {run.pk: run for run in _runs().filter(pk__in=ids)}
        if missing := [str(run_id) for run_id in ids if run_id not in found]:
            raise NotFound(f"There is no run {', '.join(missing)}.")
        return Response(ComparisonSerializer(compare([found[run_id] for run_id in ids])).data)


class SearchesView(Idempotent, ListAPIView[Run]):
    """The tenant's searches."""

    scopes = {"POST": Scope.WRITE}
    serializer_class = RunSerializer
    order_fields = ("-created_at",)

    def get_queryset(self) -> QuerySet[Run]:
        return _runs().filter(purpose=Purpose.SEARCH)

    @extend_schema(
        parameters=[LOCATION],
        request=SearchRequestSerializer,
        responses={202: RunSerializer, 429: REFUSED},
    )
    def post(self, request: Request) -> Response:
        """Queue a search; the version of its best trial is registered. `activate_if` takes the scope `admin`."""
        serializer = SearchRequestSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked, caller = serializer.search_request(), caller_of(request)
        if asked.run.activate_if is not None:
            caller.require(Scope.ADMIN)
        run = services.submit_search(request=asked, actor=caller.name)
        return accepted(RunSerializer(run).data, reverse("search", args=[run.pk]))


class SearchView(APIView):
    """One search."""

    @extend_schema(responses=SearchSerializer, parameters=[WAIT])
    def get(self, request: Request, run_id: uuid.UUID) -> Response:
        """The search with its trials; with `wait`, once it has ended, or after so many seconds."""
        searches = _runs().filter(purpose=Purpose.SEARCH)
        run = get_object_or_404(searches, pk=run_id)
        if wait_s := wait_asked(request):
            services.await_run(run, wait_s)
            run = get_object_or_404(searches, pk=run_id)
        return Response(SearchSerializer(run).data)


class EvaluateView(Idempotent, APIView):
    """Measuring a version on a dataset."""

    scopes = {"POST": Scope.WRITE}

    @extend_schema(
        parameters=[LOCATION],
        request=EvaluationRequestSerializer,
        responses={202: RunSerializer, 409: REFUSED, 429: REFUSED},
    )
    def post(self, request: Request, name: str, number: int) -> Response:
        """Queue a run whose metrics are the version's measured ones, once it has succeeded."""
        versions = ModelVersion.objects.select_related("model")
        version = get_object_or_404(versions, model__name=name, number=number)
        asked = EvaluationRequestSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        run = services.submit_evaluation(version=version, **asked.validated_data, actor=caller_of(request).name)
        return accepted(RunSerializer(run).data, reverse("run", args=[run.pk]))


def _runs() -> QuerySet[Run]:
    """Runs with all that their JSON shows, in one query."""
    return Run.objects.select_related("job", "experiment", "dataset_version__dataset", "version").defer(*HEAVY)


def _in_state(runs: QuerySet[Run], state: str) -> QuerySet[Run]:
    """The runs that show this state: that of a search whose job rests while its trials run is `running`."""
    rests = Q(purpose=Purpose.SEARCH, job__state=JobState.QUEUED, job__started_at__isnull=False)
    has_state = Q(job__state=state)
    if state == JobState.RUNNING:
        has_state |= rests
    elif state == JobState.QUEUED:
        has_state &= ~rests
    return runs.filter(has_state | Q(job=None, external_state=state))


def _by_metric(runs: QuerySet[Run], wanted: str) -> QuerySet[Run]:
    """The runs, with `metric_value` where the list is to be ordered by a metric; those without it are left out."""
    name = wanted.removeprefix("-")
    if not name.startswith(BY_METRIC):
        return runs
    metric = name.removeprefix(BY_METRIC)
    if not metric or len(metric) > MOST_METRIC_CHARS or "\0" in metric:
        raise Invalid("Name a metric: metrics.accuracy.", fields={"order_by": wanted[:100]})
    value = Cast(KeyTextTransform(metric, "metrics"), FloatField())
    return runs.filter(metrics__has_key=metric).annotate(metric_value=value)


def _id(text: str, name: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise Invalid(f"{name} is an id.", fields={name: "not an id"}) from error


runs_urlpatterns = [
    path("runs", RunsView.as_view(), name="runs"),
    path("runs/compare", RunComparisonView.as_view(), name="run-comparison"),
    path("runs/custom", CustomRunsView.as_view(), name="custom-runs"),
    path("runs/<uuid:run_id>", RunView.as_view(), name="run"),
    path("runs/<uuid:run_id>/cancel", RunCancelView.as_view(), name="run-cancel"),
    path("runs/<uuid:run_id>/metrics", RunMetricsView.as_view(), name="run-metrics"),
    path("runs/<uuid:run_id>/evaluation", RunEvaluationView.as_view(), name="run-evaluation"),
    path("runs/<uuid:run_id>/logs", RunLogsView.as_view(), name="run-logs"),
    path("searches", SearchesView.as_view(), name="searches"),
    path("searches/<uuid:run_id>", SearchView.as_view(), name="search"),
    path("models/<str:name>/versions/<int:number>/evaluate", EvaluateView.as_view(), name="version-evaluate"),
]
