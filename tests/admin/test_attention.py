"""What of predictions needs attention: models that fail, shadows that say something else, requests that have moved."""

import time
from typing import Any

import numpy as np
import pytest
from django.utils import timezone

from inference import traffic
from inference.drift import LEAST_ROWS
from inference.models import ShadowReport
from inference.queued.valkey import valkey
from inference.sampling import Samples
from inference.served import Served
from inference.traffic import Asked
from models_registry import services
from models_registry.models import Deployment, ModelVersion
from runtimes.measured import Histogram
from runtimes.profiles import ColumnProfile, Profile, Sample
from tenants.models import Tenant
from tests.clients import TenantClient
from training.models import Dataset, DatasetVersion

MODEL, VERSION = "admin/models_registry/registeredmodel", "admin/models_registry/modelversion"


@pytest.fixture
def admin(here: Tenant, logged_in: Any) -> TenantClient:
    for key in valkey().scan_iter(f"tenantry:{here.schema_name}:*"):
        valkey().delete(key)
    client: TenantClient = logged_in(here, "admin")
    return client


@pytest.fixture
def serving(here: Tenant, make_version: Any) -> ModelVersion:
    version: ModelVersion = make_version()
    services.activate(version=version, actor="tests")
    return version


def page(client: TenantClient, path: str = "admin/") -> str:
    html: str = client.get(path).content.decode()
    return html


def ask(tenant: Tenant, calls: int, failed: int) -> None:
    with valkey().pipeline() as pipeline:
        traffic.write(pipeline, [(tenant.schema_name, "churn", Asked(calls, failed=failed))], time.time())
        pipeline.execute()


def test_a_model_whose_calls_fail_needs_attention(admin: TenantClient, here: Tenant, serving: ModelVersion) -> None:
    ask(here, 1000, 4)
    assert "Needs attention" not in page(admin)
    ask(here, 1000, 246)
    assert "250 of 2,000 calls (12.5%) got no prediction today." in page(admin)
    serving.model.name = "renamed"
    serving.model.save()
    assert "Needs attention" not in page(admin)  # nothing is there to look at


def test_a_shadow_that_says_something_else_needs_attention(
    admin: TenantClient, here: Tenant, serving: ModelVersion
) -> None:
    activation = Deployment.objects.get(model=serving.model).activation
    told = {"inputs": {"age": 31}, "answered": {"prediction": "<b>stays"}, "shadow": {"prediction": "leaves"}}
    tally: dict[str, Any] = {"requests": 400, "rows": 400, "agreeing_rows": 390, "shadow_s": 8.0, "answered_s": 4.0}
    tally |= {"disagreements": [told], "differences": {"score": [400, 4.0, 0.5]}}
    report = ShadowReport.objects.create(activation=activation, version_number=2, tally=tally)
    assert "Needs attention" not in page(admin)

    report.tally |= {"agreeing_rows": 300, "failed": 50, "last_failure": "It was too slow."}
    report.save()

    home, model = page(admin), page(admin, f"{MODEL}/{serving.model_id}/change/")
    assert "v2, in its shadow, says something else for 25.0% of 400 rows." in home
    assert "v2, in its shadow, could not answer 50 of 450 requests." in home
    assert "v2 in the shadow" in model
    assert "75.0% of 400 rows" in model
    assert "20 ms instead of 10 ms" in model
    assert "&lt;b&gt;stays" in model


def test_a_version_that_is_asked_for_other_rows_needs_attention(
    admin: TenantClient, here: Tenant, serving: ModelVersion, globex: Tenant, logged_in: Any
) -> None:
    measure(serving, np.random.default_rng(0).normal(50, 10, 500))
    sample(here, serving, np.random.default_rng(1).normal(50, 10, 2 * LEAST_ROWS))
    assert "Needs attention" not in page(admin)
    assert "Drift" in page(admin, f"{VERSION}/{serving.pk}/change/")

    sample(here, serving, np.random.default_rng(2).normal(90, 5, 2 * LEAST_ROWS))

    assert "unlike the dataset that it was measured on, in age." in page(admin)
    shown = page(admin, f"{VERSION}/{serving.pk}/change/")
    assert "mean 50, 0% missing" in shown
    assert "changed" in shown
    assert "Needs attention" not in page(logged_in(globex, "admin"))


def test_a_version_without_a_dataset_or_with_few_requests_is_left_alone(
    admin: TenantClient, here: Tenant, serving: ModelVersion
) -> None:
    sample(here, serving, np.full(2 * LEAST_ROWS, 1e6))
    assert "Drift" not in page(admin, f"{VERSION}/{serving.pk}/change/")
    measure(serving, np.zeros(100))
    DatasetVersion.objects.update(profile=None)
    assert "Needs attention" not in page(admin)


def measure(version: ModelVersion, ages: np.ndarray) -> None:
    """Say that the version was measured on a dataset with these ages."""
    counts, edges = np.histogram(ages, bins=20)
    histogram = Histogram(edges=edges.tolist(), counts=counts.tolist())
    column = ColumnProfile(name="age", kind="number", missing=0, distinct=1, mean=50.0, histogram=histogram)
    profile = Profile(
        row_count=len(ages), names=["age"], columns=[column], sample=Sample(columns=[], rows=[])
    ).model_dump(mode="json")
    DatasetVersion.objects.create(
        dataset=Dataset.objects.create(name="people"),
        digest="d" * 64,
        bundle=version.bundle,
        row_count=len(ages),
        size_bytes=1,
        profile=profile,
        created_at=timezone.now(),
    )
    version.measured_on = {"dataset": "people", "digest": "d" * 64}
    version.save()


def sample(tenant: Tenant, version: ModelVersion, ages: np.ndarray) -> None:
    """Have the version asked for these ages, one a second."""
    samples, served, now = Samples(), Served.of(version), time.monotonic()
    for second, age in enumerate(ages.tolist()):
        samples.note(tenant.schema_name, served, {"age": np.array([age])}, now + 2 * second)
    samples.keep()
