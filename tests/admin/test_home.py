"""A tenant's home: what serves, the traffic, what is in memory, what needs attention, and what to do first."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from inference import counting, traffic
from inference.admin.home import warm_versions
from inference.counting import Counts, Series
from inference.models import BatchJob
from inference.queued.valkey import valkey
from inference.traffic import DAY, HOUR, MINUTE, SPANS, Asked
from models_registry import services
from models_registry.models import ModelVersion
from tenants.models import Job, JobState, Tenant
from tests.clients import TenantClient


@pytest.fixture
def admin(here: Tenant, logged_in: Any) -> TenantClient:
    counting.counts.add_up()
    for key in valkey().scan_iter(f"tenantry:{here.schema_name}:*"):
        valkey().delete(key)
    client: TenantClient = logged_in(here, "admin")
    return client


def home(client: TenantClient, query: str = "") -> str:
    page: str = client.get(f"admin/{query}").content.decode()
    return page


def asked(tenant: Tenant, model: str, moment: float, what: Asked) -> None:
    with valkey().pipeline() as pipeline:
        traffic.write(pipeline, [(tenant.schema_name, model, what)], moment)
        pipeline.execute()


def test_predictions_are_counted_by_the_minute_and_the_hour(admin: TenantClient, here: Tenant) -> None:
    counts = Counts()
    for seconds, status in ((0.002, 200), (0.004, 200), (0.2, 504)):
        counts.note(Series(here.schema_name, "churn", "direct", status), 10, seconds)
    counts.add_up()

    for span in SPANS.values():
        found = traffic.slots(here.schema_name, span)
        total = traffic.total(found)
        assert (len(found), total.calls, total.failed, total.rows) == (span.slot_count, 3, 1, 20)
        assert found[-1].asked.calls + found[-2].asked.calls == 3  # a minute may have begun in between
        assert 0.001 < (total.within_s(0.5) or 0) <= 0.0025 < (total.within_s(0.95) or 0) <= 0.005
    assert traffic.by_model(here.schema_name)["churn"].calls == 3
    assert timezone.now() - traffic.last_used(here.schema_name, ["churn", "fraud"])["churn"] < timedelta(minutes=1)
    assert all(valkey().ttl(key) > 0 for key in valkey().scan_iter(f"tenantry:{here.schema_name}:*"))


def test_what_was_asked_long_ago_is_in_the_longer_spans_alone(admin: TenantClient, here: Tenant) -> None:
    now = timezone.now().timestamp()
    for age_s in (5 * MINUTE, 5 * HOUR, 5 * DAY):
        asked(here, "churn", now - age_s, Asked(calls=1, rows=1))
    calls = {name: traffic.total(traffic.slots(here.schema_name, span)).calls for name, span in SPANS.items()}
    assert calls == {"hour": 1, "day": 2, "week": 3}


def test_the_traffic_of_one_tenant_is_not_shown_to_another(
    admin: TenantClient, here: Tenant, globex: Tenant, logged_in: Any
) -> None:
    asked(here, "churn", timezone.now().timestamp(), Asked(calls=4321, rows=4321))
    assert "4,321" in home(admin)
    assert "4,321" not in home(logged_in(globex, "admin"))


def test_the_home_draws_the_span_that_is_chosen(admin: TenantClient, here: Tenant) -> None:
    assert "Nothing was asked in the last hour." in home(admin)
    asked(here, "churn", timezone.now().timestamp() - 5 * HOUR, Asked(calls=3, failed=1, rows=2, buckets=[0] * 15))
    assert "Nothing was asked in the last hour." in home(admin)
    page = home(admin, "?span=day")
    assert 'aria-label="Predictions in the last day"' in page
    assert "33 %" in page
    assert "Predictions in the last hour" not in page
    assert home(admin, "?span=<script>").count("Last hour") == 1


def runner(tenant: uuid.UUID, version: uuid.UUID, **more: Any) -> dict[str, Any]:
    plain = {"private_bytes": 10, "in_flight": 1, "loaded_at": 5.0, "pinned": False, "retired": False}
    return {"key": f"{tenant.hex}/{version.hex}", "tenant": tenant.hex} | plain | more


def test_only_the_tenants_own_versions_are_told_of_the_pool(here: Tenant, globex: Tenant) -> None:
    own, copied = uuid.uuid4(), uuid.uuid4()
    runners = [
        runner(here.uuid, own, pinned=True),
        runner(here.uuid, copied),
        runner(here.uuid, copied, loaded_at=3.0),
        runner(here.uuid, uuid.uuid4(), retired=True),
        runner(globex.uuid, uuid.uuid4()),
        {**runner(globex.uuid, uuid.uuid4()), "tenant": here.uuid.hex},
    ]
    found = warm_versions(runners, here)
    assert set(found) == {f"{here.uuid.hex}/{own.hex}", f"{here.uuid.hex}/{copied.hex}"}
    twice = found[f"{here.uuid.hex}/{copied.hex}"]
    assert (twice.runners, twice.size_bytes, twice.in_flight, twice.since) == (2, 20, 2, 3.0)


def test_the_pool_says_what_is_cold(admin: TenantClient, make_version: Any, model_host: str) -> None:
    services.activate(version=make_version(), actor="tests")
    page = home(admin)
    assert "None of your versions is in memory." in page
    assert "loaded when asked" in page


def test_a_new_tenant_is_told_what_to_do_until_something_serves(
    admin: TenantClient, here: Tenant, make_version: Any, logged_in: Any
) -> None:
    assert "Begin here" in home(admin)
    assert "modelversion/add/" in home(admin)
    assert "modelversion/add/" not in home(logged_in(here, "viewer"))
    version = make_version()
    assert f"modelversion/{version.pk}/change/" in home(admin)
    services.activate(version=version, actor="tests")
    assert "Begin here" not in home(admin)


def test_what_failed_lately_needs_attention(admin: TenantClient, here: Tenant, make_version: Any) -> None:
    assert "Needs attention" not in home(admin)
    version = make_version(state="rejected")
    ModelVersion.objects.filter(pk=version.pk).update(rejection_reason="It imports os.")
    old = make_version(state="rejected", content=b"old")
    ago = timezone.now() - timedelta(days=30)
    ModelVersion.objects.filter(pk=old.pk).update(rejection_reason="It is forgotten.", created_at=ago)
    job = Job.objects.create(
        tenant=here,
        kind="inference.batch",
        state=JobState.FAILED,
        error_message="The column age is missing.",
        finished_at=timezone.now(),
    )
    table = BatchJob.objects.create(
        id=job.pk,
        job=job,
        model_name="churn",
        version_number=1,
        table=version.bundle,
        table_path="a",
        file_name="a.csv",
    )
    Job.objects.filter(pk=job.pk).update(object_id=table.pk.hex)

    page = home(admin)

    assert "It imports os." in page
    assert "It is forgotten." not in page
    assert "The column age is missing." in page
    assert f"batchjob/{table.pk.hex}/change/" in page
    assert admin.get(f"admin/inference/batchjob/{table.pk.hex}/change/").status_code == 200


def test_a_quota_near_its_end_needs_attention(admin: TenantClient, here: Tenant, make_version: Any) -> None:
    version = make_version(content=b"x" * 90)
    assert "Needs attention" not in home(admin)
    Tenant.objects.filter(pk=here.pk).update(max_storage_bytes=100)
    page = home(admin)
    assert "nearly full" in page
    assert "90 bytes of 100 bytes" in page.replace("\xa0", " ")
    assert version.model.name in admin.get("admin/usage/").content.decode()
