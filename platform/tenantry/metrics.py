"""What Prometheus is told, for operators: the numbers name tenants.

Tenants and jobs are counted in the database at each scrape, predictions in Valkey (`inference.counting`), so that they
are right whichever of the web processes answers and however many there are. `process_*` are those of the process that
answers. `manage.py serve_metrics` serves the same on a listen address of its own.
"""

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Count, Min
from django.db.models.query import QuerySet
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from rest_framework.request import Request
from rest_framework.views import APIView

from common.errors import Denied
from inference.counting import PredictionsCollector
from tenants.authentication import caller_of
from tenants.models import Job, JobState, Tenant
from tenants.permissions import IsOperator
from tenants.scope import shared_scope

ENDED_WITHIN = timedelta(hours=1)


class DatabaseCollector(Collector):
    """Tenants and jobs, as the shared schema has them now."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        with shared_scope():
            yield from (_tenants(), _open_jobs(), _oldest_queued(), _ended_jobs())

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: registering asks no database."""
        return []


class MetricsView(APIView):
    """The metrics in Prometheus' text format."""

    permission_classes = (IsOperator,)

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        if not caller_of(request).reaches_all:
            raise Denied("The metrics name all tenants; they need a token for all.", code="operator_required")
        return HttpResponse(generate_latest(REGISTRY), content_type=CONTENT_TYPE_LATEST)


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(DatabaseCollector())
    registry.register(PredictionsCollector())
    return registry


REGISTRY = _registry()


def _tenants() -> GaugeMetricFamily:
    metric = GaugeMetricFamily("tenantry_tenants", "Tenants by state.", labels=["state"])
    for state, count in Tenant.objects.values_list("state").order_by("state").annotate(Count("pk")):
        metric.add_metric([state], count)
    return metric


def _open_jobs() -> GaugeMetricFamily:
    return _by_kind("tenantry_jobs_open", "Jobs queued or running.", Job.objects.open())


def _ended_jobs() -> GaugeMetricFamily:
    lately = Job.objects.filter(finished_at__gt=timezone.now() - ENDED_WITHIN)
    return _by_kind("tenantry_jobs_ended_last_hour", "Jobs that ended within the last hour.", lately)


def _by_kind(name: str, text: str, jobs: "QuerySet[Job]") -> GaugeMetricFamily:
    metric = GaugeMetricFamily(name, text, labels=["tenant", "kind", "state"])
    grouped = jobs.order_by().values_list("tenant__tenant_id", "kind", "state").annotate(Count("pk"))
    for tenant_id, kind, state, count in grouped:
        metric.add_metric([tenant_id, kind, state], count)
    return metric


def _oldest_queued() -> GaugeMetricFamily:
    text = "Age in seconds of the oldest job that is due and queued; what grows here is not being worked on."
    metric = GaugeMetricFamily("tenantry_oldest_queued_job_seconds", text, labels=["kind"])
    now = timezone.now()
    due = Job.objects.filter(state=JobState.QUEUED, due_at__lte=now).order_by()
    for kind, due_at in due.values_list("kind").annotate(Min("due_at")):
        metric.add_metric([kind], (now - due_at).total_seconds())
    return metric
