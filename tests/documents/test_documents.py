"""Documents: a file in, what is on each page out, whatever happens to the workers on the way."""

import io
import json
import zipfile
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone
from PIL import Image

from documents import execution, services
from documents.models import Document, DocumentPage
from documents.reading import PageFault
from tenants.jobs import work_on
from tenants.models import Job, JobLost, JobState, Tenant, TenantState
from tenants.scope import tenant_scope
from tests.documents import samples
from tests.documents.conftest import registered_detector


def shown(client: Any, document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"api/v1/documents/{document['id']}").json()
    return found


def content_of(answer: Any) -> bytes:
    assert answer.status_code == 200, answer.content
    return b"".join(answer.streaming_content) if answer.streaming else answer.content


def states_of(document: dict[str, Any]) -> list[str]:
    return [page["state"] for page in document["pages"]]


def test_a_pdf_is_read_page_by_page(client, sent, worked):
    document = sent(dpi="72", min_score="0.3")
    address = f"api/v1/documents/{document['id']}"
    assert client.get(f"{address}/result").json()["error"]["code"] == "no_result"

    worked(document)

    found = shown(client, document)
    assert (found["state"], found["page_count"], found["done_pages"]) == ("succeeded", 3, 3), found
    assert (found["progress"]["percent"], found["detection_count"]) == (100, 6)
    assert states_of(found) == ["succeeded"] * 3
    page = client.get(f"{address}/pages/2").json()
    assert [(one["label"], one["score"]) for one in page["detections"]] == [("title", 0.9), ("table", 0.6)]
    width, height = page["width_px"], page["height_px"]
    assert (width, height) == pytest.approx((page["width_pt"], page["height_pt"]), abs=1)  # at 72 dpi
    assert page["detections"][0]["box_px"] == pytest.approx(
        [0.1 * width, 0.05 * height, 0.9 * width, 0.15 * height], abs=1
    )
    at_144 = client.get(f"{address}/pages/2").json()["detections"][0]["box_pt"]
    assert at_144 == pytest.approx([59.5, 42.1, 535.8, 126.3], abs=1)


def test_a_page_is_fetched_as_image_overlay_and_crops(client, sent, worked):
    document = sent(pages="1")
    worked(document)
    page = f"api/v1/documents/{document['id']}/pages/1"
    answer = client.get(f"{page}/image")
    image = Image.open(io.BytesIO(content_of(answer)))
    assert (image.format, answer["Content-Type"]) == ("PNG", "image/png")
    assert image.size == pytest.approx((1240, 1754), abs=1)
    assert answer["X-Content-Type-Options"] == "nosniff"
    overlay = Image.open(io.BytesIO(content_of(client.get(f"{page}/overlay"))))
    assert overlay.size == image.size
    assert overlay.convert("RGB").tobytes() != image.convert("RGB").tobytes()
    crop = Image.open(io.BytesIO(content_of(client.get(f"{page}/crops/1"))))
    assert crop.size == pytest.approx((744, 438), abs=2)
    assert client.get(f"{page}/crops/2").status_code == 404


def test_all_of_it_comes_as_a_zip_or_as_coco(client, sent, worked):
    document = sent(pages="1,3")
    worked(document)
    result = f"api/v1/documents/{document['id']}/result"
    with zipfile.ZipFile(io.BytesIO(content_of(client.get(result)))) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        coco = json.loads(archive.read("annotations.coco.json"))
    pages = [f"pages/0000{number}.{kind}" for number in (1, 3) for kind in ("json", "png")]
    assert names == ["annotations.coco.json", *pages]
    assert json.loads(content_of(client.get(f"{result}?format=coco"))) == coco
    assert [(one["id"], one["file_name"]) for one in coco["images"]] == [(1, "pages/00001.png"), (3, "pages/00003.png")]
    assert [(one["id"], one["image_id"], one["category_id"]) for one in coco["annotations"]] == [
        (1, 1, 1), (2, 1, 2), (3, 3, 1), (4, 3, 2),
    ]  # fmt: skip
    assert [one["name"] for one in coco["categories"]] == samples.LABELS


@pytest.mark.parametrize(("kind", "pages"), [("PNG", 1), ("JPEG", 1), ("WEBP", 1), ("TIFF", 2)])
def test_an_image_is_told_by_its_content(kind, pages, client, sent, worked):
    document = sent(samples.picture(kind, pages), "scan.pdf")
    assert document["media_type"] == f"image/{kind.lower()}"
    worked(document)
    found = shown(client, document)
    assert (found["state"], states_of(found)) == ("succeeded", ["succeeded"] * pages), found["error"]


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"file": b"%PD"}, 415, "unsupported_media_type"),
        ({"file": b""}, 422, "empty_document"),
        ({"title": "  "}, 422, "invalid_parameter"),
        ({"pages": "3-1"}, 422, "invalid_parameter"),
        ({"pages": "all"}, 422, "invalid_parameter"),
        ({"dpi": "5000"}, 422, "invalid_parameter"),
        ({"min_score": "1.5"}, 422, "invalid_parameter"),
        ({"min_score": "nan"}, 422, "invalid_parameter"),
        ({"model": "nobody"}, 404, "not_found"),
        ({"version": "9"}, 404, "not_found"),
    ],
    ids=lambda value: str(value),
)
def test_what_cannot_be_asked_is_refused_at_once(client, fields, status, code):
    file = SimpleUploadedFile("report.pdf", fields.pop("file", samples.pdf(1)))
    answer = client.post("api/v1/documents", {"title": "Report", "file": file} | fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.content
    assert not Job.objects.filter(kind=execution.READ).exists()


def test_a_document_that_is_too_large_is_refused_before_it_is_kept(client, settings):
    settings.DOCUMENT_MAX_BYTES = 1000
    file = SimpleUploadedFile("report.pdf", samples.pdf(1))
    answer = client.post("api/v1/documents", {"title": "Report", "file": file})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "document_too_large")


def test_without_a_detection_model_a_sentence_says_what_to_do(acme, client_for, model_host):
    file = SimpleUploadedFile("report.pdf", samples.pdf(1))
    answer = client_for(acme).post("api/v1/documents", {"title": "Report", "file": file})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no_detection_model")
    assert "upload one" in answer.json()["error"]["message"]


def test_another_model_reads_no_pages_and_of_several_one_is_named(acme, client, serving):
    def asked(**fields: str) -> Any:
        file = SimpleUploadedFile("report.pdf", samples.pdf(1))
        return client.post("api/v1/documents", {"title": "Report", "file": file} | fields)

    with tenant_scope(acme):
        other = registered_detector("others")
    answer = asked()
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "several_detection_models")
    assert asked(model="others").status_code == 202
    with tenant_scope(acme):
        other.task = "classification"
        other.save()
    answer = asked(model="others")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_a_detection_model")
    assert asked().json()["model"] == "pages"


@pytest.mark.parametrize(
    ("content", "fields", "code"),
    [
        (samples.pdf(1, password="secret"), {}, "encrypted_document"),
        (b"%PDF-1.7\nnothing more", {}, "unreadable_document"),
        (samples.pdf(2), {"pages": "1-3"}, "no_such_page"),
    ],
    ids=["encrypted", "damaged", "no such page"],
)
def test_a_file_that_cannot_be_read_fails_the_job_in_a_sentence(content, fields, code, client, sent, worked):
    document = sent(content, **fields)
    worked(document)
    found = shown(client, document)
    assert (found["state"], found["error"]["code"]) == ("failed", code)
    assert found["error"]["message"].endswith(".")
    assert client.get(f"api/v1/documents/{document['id']}/result").status_code == 409


def test_more_pages_than_may_be_read_are_refused_and_some_of_them_are_not(client, sent, worked, settings):
    settings.DOCUMENT_MAX_PAGES = 2
    document, some = sent(), sent(pages="2-3")
    worked(document)
    worked(some)
    assert shown(client, document)["error"]["code"] == "too_many_pages"
    assert shown(client, some)["state"] == "succeeded"


def test_a_page_that_fails_leaves_the_others_and_is_read_again(client, sent, worked, read_pages):
    def fail(page: Any) -> None:
        if page.number == 2:
            raise PageFault("page_too_large", "The page is too large.")

    read_pages.before = fail
    document = sent()
    worked(document)
    found = shown(client, document)
    assert (found["state"], found["failed_pages"], states_of(found)) == (
        "succeeded", 1, ["succeeded", "failed", "succeeded"],
    )  # fmt: skip
    assert found["pages"][1]["error"] == {"code": "page_too_large", "message": "The page is too large."}
    page = f"api/v1/documents/{document['id']}/pages/2"
    assert client.get(page).json()["detections"] is None
    assert client.get(f"{page}/image").json()["error"]["code"] == "page_not_read"

    read_pages.before = lambda page: None
    answer = client.post(f"api/v1/documents/{document['id']}/retry")
    assert (answer.status_code, answer.json()["state"]) == (202, "queued"), answer.content
    assert client.post(f"api/v1/documents/{document['id']}/retry").json()["error"]["code"] == "document_not_ended"
    worked(document)

    assert states_of(shown(client, document)) == ["succeeded"] * 3
    assert read_pages == [1, 3, 2]
    assert client.post(f"api/v1/documents/{document['id']}/retry").json()["error"]["code"] == "nothing_to_retry"


def test_where_no_page_can_be_read_the_document_fails(client, sent, worked, read_pages):
    def fail(page: Any) -> None:
        raise PageFault("model_error", "The model raised.")

    read_pages.before = fail
    document = sent()
    worked(document)
    error = shown(client, document)["error"]
    assert error == {"code": "model_error", "message": "No page could be read. Page 1: The model raised."}


class Killed(BaseException):
    """The end of a worker, as far as its thread can tell."""


def test_a_killed_workers_document_goes_on_and_no_page_is_read_twice(client, sent, worked, read_pages):
    def kill(page: Any) -> None:
        if page.number == 2:
            raise Killed

    read_pages.before = kill
    document = sent()
    with pytest.raises(Killed):
        worked(document)
    found = shown(client, document)
    assert (found["state"], found["done_pages"], states_of(found)) == ("running", 1, ["succeeded", "running", "queued"])
    assert found["progress"]["stage"] == "page 1 of 3"
    worked(document)  # its lease is not over yet
    assert shown(client, document)["done_pages"] == 1

    Job.objects.filter(kind=execution.READ).update(lease_until=timezone.now() - timedelta(seconds=1))
    read_pages.before = lambda page: None
    worked(document)

    assert shown(client, document)["state"] == "succeeded"
    assert read_pages == [1, 2, 3]


def test_workers_share_a_document(acme, client, sent, worked, read_pages, settings):
    settings.DOCUMENT_WORKERS = 2
    helped: list[str] = []

    def help_out(page: Any) -> None:
        """While the lead has the first page, another worker takes the hint."""
        if not helped:
            helped.append("yes")
            with tenant_scope(acme):
                work_on(str(Job.objects.get(kind=execution.HELP).pk), execution.help_read)

    read_pages.before = help_out
    document = sent(samples.pdf(4))
    worked(document)

    found = shown(client, document)
    assert (found["state"], found["done_pages"]) == ("succeeded", 4)
    assert read_pages == [2, 3, 4, 1]
    assert Job.objects.get(kind=execution.HELP).state == JobState.SUCCEEDED


def test_a_worker_that_was_taken_for_dead_writes_nothing(acme, client, sent, worked, read_pages):
    document = sent()
    with tenant_scope(acme):
        row = Document.objects.select_related("job").get(pk=document["id"])
        row.job.claim("slow")
        DocumentPage.objects.create(document=row, number=1, width_pt=1, height_pt=1)
        slow = row.claim_page(row.job)
        assert slow is not None
        assert row.claim_page(row.job) is None
        Job.objects.filter(pk=row.job_id).update(lease_until=timezone.now() - timedelta(seconds=1))
        again = Job.objects.get(pk=row.job_id)
        again.claim("another")
        taken = row.claim_page(again)
        assert taken is not None
        assert taken == slow
        with pytest.raises(JobLost):
            slow.fail("code", "message")
        taken.fail("code", "message")


def test_a_cancelled_document_ends_and_can_be_gone_on_with(client, sent, worked, read_pages):
    document = sent()

    def cancel(page: Any) -> None:
        if page.number == 2:
            services.cancel_document(document=page.document, actor="tests")

    read_pages.before = cancel
    worked(document)
    found = shown(client, document)
    assert (found["state"], states_of(found)) == ("cancelled", ["succeeded", "cancelled", "cancelled"])
    assert read_pages == [1, 2]
    assert client.post(f"api/v1/documents/{document['id']}/cancel").status_code == 200
    assert client.get(f"api/v1/documents/{document['id']}/pages/1").json()["detections"]

    read_pages.before = lambda page: None
    assert client.post(f"api/v1/documents/{document['id']}/retry").status_code == 202
    worked(document)
    assert shown(client, document)["state"] == "succeeded"
    assert read_pages == [1, 2, 2, 3]


def test_a_document_that_takes_too_long_fails_with_how_far_it_came(client, sent, worked, read_pages, settings):
    document = sent()

    def wait(page: Any) -> None:
        settings.DOCUMENT_SECONDS = -1  # as if that much time had passed

    read_pages.before = wait
    worked(document)
    found = shown(client, document)
    assert (found["state"], found["error"]["code"]) == ("failed", "document_too_long")
    assert "1 of 3 pages" in found["error"]["message"]
    assert states_of(found) == ["succeeded", "cancelled", "cancelled"]


def test_a_deleted_document_is_gone_with_its_pages_and_jobs(acme, client, sent, worked, read_pages):
    document = sent()

    def delete(page: Any) -> None:
        if page.number == 2:
            services.delete_document(document=page.document, actor="tests")

    read_pages.before = delete
    worked(document)
    assert client.get(f"api/v1/documents/{document['id']}").status_code == 404
    with tenant_scope(acme):
        assert not DocumentPage.objects.exists()
    assert not Job.objects.filter(kind__in=(execution.READ, execution.HELP)).exists()
    audited = [one["action"] for one in client.get("api/v1/audit").json()["results"]]
    assert audited[:2] == ["document.delete", "document.submit"]


def test_a_long_document_gives_others_their_turn(acme, globex, client, sent, worked, read_pages, monkeypatch):
    monkeypatch.setattr(execution, "SLICE_S", 0.0)
    document = sent()
    Job.objects.create(tenant=globex, kind=execution.READ, object_id="tests")
    worked(document)
    assert (shown(client, document)["state"], read_pages) == ("queued", [1])
    worked(document)
    worked(document)
    worked(document)
    assert (shown(client, document)["state"], read_pages) == ("succeeded", [1, 2, 3])


def test_a_suspended_tenants_document_waits(acme, client, sent, worked, read_pages):
    def suspend(page: Any) -> None:
        if page.number == 2:
            Tenant.objects.filter(pk=acme.pk).update(state=TenantState.SUSPENDED)

    read_pages.before = suspend
    document = sent()
    worked(document)
    with tenant_scope(acme):
        job = Document.objects.select_related("job").get(pk=document["id"]).job
    assert (job.state, read_pages) == (JobState.QUEUED, [1, 2])


def test_a_tenant_has_so_many_open_documents_and_no_more(client, sent, monkeypatch):
    monkeypatch.setattr("documents.services.MOST_OPEN", 1)
    sent()
    file = SimpleUploadedFile("report.pdf", samples.pdf(1))
    answer = client.post("api/v1/documents", {"title": "Report", "file": file})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_open_jobs")


def test_the_same_request_twice_is_one_document(client):
    content = samples.pdf(1)
    first, second = (
        client.post(
            "api/v1/documents",
            {"title": "Report", "file": SimpleUploadedFile("report.pdf", content)},
            HTTP_IDEMPOTENCY_KEY="once",
        )
        for _ in range(2)
    )
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    assert Job.objects.filter(kind=execution.READ).count() == 1


def test_a_version_with_an_open_document_is_kept(client, sent):
    sent()
    client.post_json("api/v1/models/pages/deactivate")
    answer = client.delete("api/v1/models/pages/versions/1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "version_in_use")


def test_lists_are_filtered_and_cost_a_bounded_number_of_queries(client, sent, django_assert_max_num_queries):
    for title in ("Report", "Invoice", "Report 2"):
        sent(title=title)
    with django_assert_max_num_queries(8):
        listed = client.get("api/v1/documents?state=queued&model=pages&title=report").json()
    assert [one["title"] for one in listed["results"]] == ["Report 2", "Report"]
    assert client.get("api/v1/documents?model=other").json()["results"] == []
    assert client.get("api/v1/documents?order_by=title&limit=1").json()["results"][0]["title"] == "Invoice"
