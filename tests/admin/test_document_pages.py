"""Documents by the pages of a tenant's admin."""

from typing import Any

import numpy as np
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from documents.models import Document, DocumentPage
from documents.page_files import PageRead, store_page
from runtimes.detection import Detection
from runtimes.page_work import PageImage
from runtimes.png_files import png_of
from tenants.models import Job, JobState
from tests.admin.test_pages import EVIL
from tests.clients import TenantClient

PAGES = "admin/documents/document"


@pytest.fixture
def detecting(here: Any, make_version: Any) -> Any:
    """Version 1 of acme's detection model `churn`, active."""
    from models_registry import services

    version = make_version()
    version.task = "detection"
    version.save()
    services.activate(version=version, actor="tests")
    return version


@pytest.fixture
def scientist(here: Any, logged_in: Any) -> TenantClient:
    client: TenantClient = logged_in(here, "data_scientist")
    return client


def send(client: TenantClient, **changes: Any) -> Any:
    file = SimpleUploadedFile("report.png", png_of(np.zeros((40, 30, 3), np.uint8)))
    return client.post(f"{PAGES}/add/", {"title": "Report", "file": file} | changes)


def page(document: Document, number: int, label: str = "title") -> DocumentPage:
    """A page that was read, with one thing on it."""
    rgb = np.full((60, 40, 3), 200, np.uint8)
    found = [Detection(label, 0.9, (4.0, 4.0, 30.0, 12.0)), Detection("table", 0.6, (1.0, 20.0, 9.0, 30.0))]
    return DocumentPage.objects.create(
        document=document,
        number=number,
        state=JobState.SUCCEEDED,
        width_pt=30,
        height_pt=45,
        bundle=store_page(number, PageRead(PageImage(rgb, png_of(rgb), 30.0, 45.0), found)),
    )


def test_a_document_is_sent_watched_and_cancelled(scientist: TenantClient, detecting: Any) -> None:
    response = send(scientist)
    document = Document.objects.select_related("job").get()
    assert response["Location"] == f"/t/acme/{PAGES}/{document.pk}/change/"
    shown = scientist.get(f"{PAGES}/{document.pk}/change/").content.decode()
    assert "data-refresh-s" in shown
    assert "<progress" in shown
    assert "once the document has been opened" in shown
    assert "Report" in scientist.get(f"{PAGES}/").content.decode()

    scientist.post(f"{PAGES}/{document.pk}/cancel/")
    assert Job.objects.get(pk=document.job_id).state == JobState.CANCELLED
    assert "data-refresh-s" not in scientist.get(f"{PAGES}/{document.pk}/change/").content.decode()
    assert f"{PAGES}/{document.pk}/retry/" in scientist.get(f"{PAGES}/{document.pk}/change/").content.decode()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"file": ""}, "This field is required"),
        ({"model": "nobody"}, "There is no model"),
        ({"pages": "x"}, "such as"),
        ({"dpi": "9999"}, "dpi is from"),
    ],
)
def test_what_cannot_be_asked_is_told_in_the_form(
    scientist: TenantClient, detecting: Any, changes: dict[str, str], told: str
) -> None:
    response = send(scientist, **changes)
    assert response.status_code == 200
    assert told in response.content.decode()
    assert not Document.objects.exists()


def test_without_a_detection_model_the_form_says_what_to_do(scientist: TenantClient) -> None:
    assert "No detection model serves here yet" in scientist.get(f"{PAGES}/add/").content.decode()
    assert "No detection model serves here" in send(scientist).content.decode()


def test_the_viewer_shows_a_page_with_its_boxes_and_the_way_to_the_others(
    scientist: TenantClient, detecting: Any
) -> None:
    send(scientist)
    document = Document.objects.get()
    for number in (1, 2, 4):
        page(document, number, EVIL)
    Document.objects.update(title=EVIL, page_total=4, page_count=3)
    here = f"{PAGES}/{document.pk}/pages"

    shown = scientist.get(f"{here}/2/").content.decode()

    assert f'rel="prev" href="/t/acme/{here}/1/"' in shown
    assert f'rel="next" href="/t/acme/{here}/4/"' in shown
    assert 'viewBox="0 0 40 60"' in shown
    assert '<rect x="4.0" y="4.0" width="26.0" height="8.0"/>' in shown
    assert shown.count('<g class="tny-found') == 2
    assert "<script>alert" not in shown
    assert " style=" not in shown
    image: Any = scientist.get(f"{here}/2/image/")
    assert (image["Content-Type"], image["Content-Disposition"]) == ("image/png", "inline")
    assert b"".join(image.streaming_content).startswith(b"\x89PNG")
    assert scientist.get(f"{PAGES}/{document.pk}/look/")["Location"] == f"/t/acme/{here}/1/"
    assert scientist.get(f"{here}/3/").status_code == 404
    assert "&lt;script&gt;" in scientist.get(f"{PAGES}/{document.pk}/change/").content.decode()


def test_a_failed_page_is_shown_with_its_sentence_and_a_button(scientist: TenantClient, detecting: Any) -> None:
    send(scientist)
    document = Document.objects.get()
    page(document, 1)
    DocumentPage.objects.create(
        document=document,
        number=2,
        width_pt=1,
        height_pt=1,
        state=JobState.FAILED,
        error_code="page_too_large",
        error_message="The page is too large.",
    )
    Document.objects.update(page_total=2, page_count=2)
    Job.objects.filter(pk=document.job_id).update(state=JobState.SUCCEEDED)
    shown = scientist.get(f"{PAGES}/{document.pk}/change/").content.decode()
    assert "The page is too large." in shown
    assert "The page is too large." in scientist.get(f"{PAGES}/{document.pk}/pages/2/").content.decode()
    assert scientist.get(f"{PAGES}/{document.pk}/pages/2/image/").status_code == 409

    scientist.post(f"{PAGES}/{document.pk}/retry/")
    assert Document.objects.get().job.state == JobState.QUEUED
    assert list(document.pages.values_list("state", flat=True)) == [JobState.SUCCEEDED, JobState.QUEUED]


def test_a_viewer_sees_and_sends_none(here: Any, logged_in: Any, scientist: TenantClient, detecting: Any) -> None:
    send(scientist)
    document = Document.objects.get()
    page(document, 1)
    viewer = logged_in(here, "viewer")
    assert viewer.get(f"{PAGES}/").status_code == 200
    assert viewer.get(f"{PAGES}/{document.pk}/pages/1/").status_code == 200
    assert viewer.get(f"{PAGES}/add/").status_code == 403
    assert viewer.post(f"{PAGES}/{document.pk}/remove/").status_code == 403


def test_a_document_is_deleted_after_a_question(scientist: TenantClient, detecting: Any) -> None:
    send(scientist)
    document = Document.objects.get()
    assert "all that was found in it" in scientist.get(f"{PAGES}/{document.pk}/remove/").content.decode()
    scientist.post(f"{PAGES}/{document.pk}/remove/")
    assert not Document.objects.exists()
