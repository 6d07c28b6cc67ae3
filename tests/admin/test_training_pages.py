"""Datasets and runs by the pages of a tenant's admin."""

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from tenants.journal.models import AuditEvent
from tenants.models import Job, JobState, Tenant
from tests.clients import TenantClient
from training.models import Dataset, DatasetVersion, Run

RUNS, DATASETS = "admin/training/run", "admin/training/dataset"
CSV = b"age,left\n31,no\n52,yes\n40,no\n"


@pytest.fixture
def scientist(here: Tenant, logged_in: Any) -> TenantClient:
    client: TenantClient = logged_in(here, "data_scientist")
    return client


@pytest.fixture
def dataset(scientist: TenantClient) -> Dataset:
    scientist.post(f"{DATASETS}/add/", {"name": "churn", "file": SimpleUploadedFile("churn.csv", CSV)})
    return Dataset.objects.get()


def start(client: TenantClient, **changes: Any) -> Any:
    form = {"trainer": "logistic_regression", "dataset": "churn", "target": "left", "model": "churn"}
    return client.post(f"{RUNS}/add/", form | changes)


def test_a_dataset_is_uploaded_and_previewed(scientist: TenantClient, dataset: Dataset) -> None:
    version = DatasetVersion.objects.get()
    assert (version.row_count, version.columns) == (3, ["age", "left"])
    page = scientist.get(f"{DATASETS}/{dataset.pk}/change/").content.decode()
    assert "<td>52</td>" in page
    assert AuditEvent.objects.filter(action="dataset.upload", actor="data_scientist@acme.test").exists()


def test_a_file_that_is_no_table_is_refused(scientist: TenantClient) -> None:
    response = scientist.post(f"{DATASETS}/add/", {"name": "churn", "file": SimpleUploadedFile("x.csv", b"a,b\n1\n")})
    assert response.status_code == 200
    assert 'role="alert"' in response.content.decode()
    assert not Dataset.objects.exists()


def test_a_run_is_started_and_cancelled(scientist: TenantClient, dataset: Dataset) -> None:
    response = start(scientist, params='{"C": 0.5}')
    run = Run.objects.select_related("job").get()
    assert response["Location"] == f"/t/acme/{RUNS}/{run.pk}/change/"
    assert (run.state, run.params["C"], run.target) == ("queued", 0.5, "left")
    page = scientist.get(f"{RUNS}/{run.pk}/change/").content.decode()
    assert "data-refresh-s" in page
    assert "/cancel/" in page

    scientist.post(f"{RUNS}/{run.pk}/cancel/")
    assert Job.objects.get(pk=run.pk).state == JobState.CANCELLED
    assert "/cancel/" not in scientist.get(f"{RUNS}/{run.pk}/change/").content.decode()
    assert AuditEvent.objects.filter(action="run.cancel", actor="data_scientist@acme.test").exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"target": "gone"}, "has no column"),
        ({"params": '{"depth": 3}'}, "Extra inputs are not permitted"),
        ({"model": "no spaces"}, "name is 1 to 100"),
        ({"activate_if": '{"metric": "accuracy"}'}, "admin"),
    ],
)
def test_a_run_that_cannot_be_is_refused_at_its_field(
    scientist: TenantClient, dataset: Dataset, wrong: dict[str, str], told: str
) -> None:
    response = start(scientist, **wrong)
    assert response.status_code == 200
    assert told in response.content.decode()
    assert not Run.objects.exists()


def test_a_dataset_that_a_run_used_is_kept(scientist: TenantClient, dataset: Dataset) -> None:
    start(scientist)
    assert "was used by" in scientist.post(f"{DATASETS}/{dataset.pk}/remove/").content.decode()
    Run.objects.all().delete()
    scientist.post(f"{DATASETS}/{dataset.pk}/remove/")
    assert not Dataset.objects.exists()


def test_a_failed_run_says_why(scientist: TenantClient, dataset: Dataset) -> None:
    start(scientist)
    run = Run.objects.get()
    Job.objects.filter(pk=run.pk).update(
        state=JobState.FAILED, error_code="invalid_data", error_message="One class only."
    )
    assert "One class only." in scientist.get(f"{RUNS}/{run.pk}/change/").content.decode()
