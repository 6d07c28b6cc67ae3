"""The operator's pages about the platform itself: workers, queues, model hosts, usage and versions."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from inference import counting
from inference.queued.valkey import valkey
from tenantry import worker_reports
from tenantry.admin.usage import counted
from tenantry.admin.workers import queue_depths, queue_of_kind
from tenantry.worker_reports import WorkerReport
from tenants.models import Job, JobState, Tenant
from tests.clients import TenantClient

PAGES = ("admin/workers/", "admin/model-hosts/", "admin/tenants-usage/", "admin/versions/")
TENANTS = 200
SCHEMA_OF_NUMBERS = """
DO $$ BEGIN FOR number IN 1..{most} LOOP
    EXECUTE format('CREATE SCHEMA t_%s', number);
    {tables}
END LOOP; END $$
"""
TABLES = (
    "models_registry_registeredmodel", "models_registry_modelversion", "models_registry_blob",
    "training_datasetversion", "training_run",
)  # fmt: skip


@pytest.fixture
def operator(db: None, logged_in: Any) -> TenantClient:
    client: TenantClient = logged_in()
    return client


@pytest.fixture
def report() -> Iterator[WorkerReport]:
    """A worker that has just reported."""
    made = WorkerReport("tests@here", ["training"], 3, "prefork", 1, time.time() - 60, 2, 41, 99 << 20, time.time())
    worker_reports.keep(made)
    yield made
    valkey().hdel(worker_reports.KEY, made.name)


@pytest.fixture
def many(acme: Tenant) -> list[Tenant]:
    """Many tenants."""
    return tenants_like(acme, TENANTS)


def tenants_like(acme: Tenant, most: int) -> list[Tenant]:
    """Tenants whose schemas have what is counted, each with two jobs."""
    tables = "\n".join(
        f"EXECUTE format('CREATE TABLE t_%s.{table} (LIKE {acme.schema_name}.{table})', number);" for table in TABLES
    )
    with connection.cursor() as cursor:
        cursor.execute(SCHEMA_OF_NUMBERS.format(most=most, tables=tables))
        cursor.execute(f"INSERT INTO t_7.{TABLES[2]} SELECT * FROM {acme.schema_name}.{TABLES[2]}")
    made = [
        Tenant(tenant_id=f"many-{number:03}", name=f"Many {number}", schema_name=f"t_{number}")
        for number in range(1, most + 1)
    ]
    Tenant.objects.bulk_create(made)
    states = (JobState.QUEUED, JobState.FAILED)
    Job.objects.bulk_create(
        Job(tenant=tenant, kind="training.run", object_id="x", state=state, finished_at=timezone.now())
        for tenant in made
        for state in states
    )
    return made


@pytest.mark.parametrize("path", PAGES)
def test_the_pages_are_operators_alone(path: str, operator: TenantClient, acme: Tenant, logged_in: Any) -> None:
    assert operator.get(path).status_code == 200
    assert TenantClient("").get(path).status_code == 302
    assert logged_in(acme, "admin", at=None).get(path).status_code in (302, 403, 404)


def test_workers_show_what_they_reported(operator: TenantClient, report: WorkerReport) -> None:
    page = operator.get("admin/workers/").content.decode()
    assert report.name in page
    assert "2 of 3" in page
    worker_reports.keep(WorkerReport(**(vars(report) | {"at": time.time() - worker_reports.SILENT_AFTER_S - 1})))
    assert "Silent" in operator.get("admin/workers/").content.decode()
    worker_reports.keep(WorkerReport(**(vars(report) | {"at": time.time() - worker_reports.FORGOTTEN_AFTER_S - 1})))
    assert report.name not in operator.get("admin/workers/").content.decode()
    assert not valkey().hexists(worker_reports.KEY, report.name)


def test_queues_say_how_much_waits_and_how_long(operator: TenantClient, acme: Tenant) -> None:
    long_ago = timezone.now() - timedelta(hours=3)
    Job.objects.create(tenant=acme, kind="training.run", object_id="1", due_at=long_ago)
    Job.objects.create(
        tenant=acme, kind="models_registry.inspect", object_id="2", state=JobState.FAILED, finished_at=timezone.now(),
        error_code="worker_lost", error_message="Its worker was lost.",
    )  # fmt: skip
    page = operator.get("admin/workers/").content.decode()
    assert "3\xa0hours" in page
    assert "Its worker was lost." in page
    assert (queue_of_kind("training.run"), queue_of_kind("training.profile")) == ("training", "default")
    assert set(queue_depths()) >= {"default", "training", "inference.0"}


def test_a_machine_without_a_model_host_says_so(operator: TenantClient, settings: Any) -> None:
    settings.MODELS_SOCKET = ""
    assert "no model host" in operator.get("admin/model-hosts/").content.decode()


def test_a_model_host_that_is_away_does_not_break_the_page(operator: TenantClient, settings: Any) -> None:
    if not settings.MODELS_SOCKET:
        pytest.skip("no address of a model host is set")
    assert operator.get("admin/model-hosts/").status_code == 200
    assert "Django" in operator.get("admin/versions/").content.decode()


def test_usage_counts_each_tenants_own(acme: Tenant) -> None:
    many = tenants_like(acme, 8)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {acme.schema_name}.models_registry_modelversion")
        (versions,) = cursor.fetchone()
    found = counted([acme, many[6], many[7], Tenant(schema_name="t_gone")])
    assert set(found) == {acme.schema_name, "t_7", "t_8"}
    assert found[acme.schema_name]["versions"] == versions
    assert (found["t_7"]["size_bytes"], found["t_8"]["size_bytes"]) == (found[acme.schema_name]["size_bytes"], 0)


def test_pages_cost_as_many_queries_with_many_tenants(operator: TenantClient, many: list[Tenant]) -> None:
    counting.counts.add_up()
    for path in (*PAGES, "admin/", "admin/tenants/tenant/", "admin/tenants/job/"):
        operator.get(path)  # what a process loads once is loaded
        with CaptureQueriesContext(
            connection,
        ) as queries:
            began = time.monotonic()
            answer = operator.get(path)
            seconds = time.monotonic() - began
        assert answer.status_code == 200
        assert len(queries) <= 16, f"{path}: {len(queries)} queries"
        assert seconds < 1.5, f"{path}: {seconds:.2f} s"  # 0.3 s, and room for a machine that does other things
    assert "many-051" in operator.get("admin/tenants-usage/?page=2").content.decode()
