"""Batch jobs by the pages of a tenant's admin."""

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from inference.models import BatchJob
from tenants.models import Job, JobState
from tests.clients import TenantClient

PAGES = "admin/inference/batchjob"


@pytest.fixture
def serving(here: Any, make_version: Any) -> Any:
    """Version 1 of acme's model `churn`, active."""
    from models_registry import services

    version = make_version()
    services.activate(version=version, actor="tests")
    return version


@pytest.fixture
def scientist(here: Any, logged_in: Any, serving: Any) -> TenantClient:
    client: TenantClient = logged_in(here, "data_scientist")
    return client


def start(client: TenantClient, **changes: Any) -> Any:
    file = SimpleUploadedFile("people.csv", b"a,b,c,d\n1,2,3,4\n")
    return client.post(f"{PAGES}/add/", {"model": "churn", "file": file} | changes)


def test_a_batch_job_is_asked_for_shown_and_cancelled(scientist: TenantClient) -> None:
    response = start(scientist)
    batch = BatchJob.objects.select_related("job").get()
    assert response["Location"] == f"/t/acme/{PAGES}/{batch.pk}/change/"
    page = scientist.get(f"{PAGES}/{batch.pk}/change/").content.decode()
    assert "<progress" in page
    assert "people.csv" in page
    assert "people.csv" in scientist.get(f"{PAGES}/").content.decode()

    scientist.post(f"{PAGES}/{batch.pk}/cancel/")
    assert Job.objects.get(pk=batch.pk).state == JobState.CANCELLED


def test_a_result_can_be_downloaded(scientist: TenantClient) -> None:
    start(scientist)
    batch = BatchJob.objects.get()
    assert "/result/" not in scientist.get(f"{PAGES}/{batch.pk}/change/").content.decode()
    batch.result = batch.table
    batch.save()
    assert "/result/" in scientist.get(f"{PAGES}/{batch.pk}/change/").content.decode()
    downloaded: Any = scientist.get(f"{PAGES}/{batch.pk}/result/")
    assert b"".join(downloaded.streaming_content).startswith(b"a,b,c,d")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"file": ""}, "Send a file, or name a dataset"),
        ({"model": "nobody"}, "There is no model"),
        ({"file": "", "dataset": "nothing"}, "There is no dataset"),
    ],
)
def test_what_cannot_be_asked_is_told_in_the_form(scientist: TenantClient, changes: dict[str, str], told: str) -> None:
    response = start(scientist, **changes)
    assert response.status_code == 200
    assert told in response.content.decode()
    assert not BatchJob.objects.exists()


def test_a_viewer_sees_and_asks_for_none(here: Any, logged_in: Any, serving: Any) -> None:
    viewer = logged_in(here, "viewer")
    assert viewer.get(f"{PAGES}/").status_code == 200
    assert viewer.get(f"{PAGES}/add/").status_code == 403
