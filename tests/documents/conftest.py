"""A tenant with a detection model, and workers that do what they are told in this process."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from documents import execution
from documents.models import Document
from documents.reading import Reader
from runtimes.detection import signature_of
from tenants.jobs import work_on
from tenants.models import Job, JobState
from tenants.scope import tenant_scope
from tests.documents import samples


def registered_detector(model_name: str = "pages") -> Any:
    """The next version of a detection model in the tenant in scope, active, as its inspection would leave it."""
    from models_registry import services
    from models_registry.blobs import IncomingFile
    from models_registry.metadata import parse_metadata

    version = services.register_version(
        model_name=model_name,
        files=[IncomingFile("model.onnx", io.BytesIO(samples.detector()))],
        metadata=parse_metadata({"detection": samples.LAYOUT}),
        actor="tests",
        create=True,
    )
    version.state, version.format, version.task = "ready", "onnx", "detection"
    version.signature = signature_of(samples.LABELS).to_json()
    version.save()
    Job.objects.filter(object_id=version.pk).update(state=JobState.SUCCEEDED)
    services.activate(version=version, actor="tests")
    return version


@pytest.fixture(autouse=True)
def _one_documents_worker(settings: Any) -> None:
    """Nobody helps, unless a test says so."""
    settings.DOCUMENT_WORKERS = 1


@pytest.fixture
def serving(acme: Any, model_host: str) -> Any:
    """Version 1 of acme's detection model `pages`, active."""
    with tenant_scope(acme):
        return registered_detector()


@pytest.fixture
def client(acme: Any, client_for: Any, serving: Any) -> Any:
    return client_for(acme)


@pytest.fixture
def sent(client: Any) -> Callable[..., dict[str, Any]]:
    """`sent(content, name="report.pdf", **fields)`: a document, as the API answers it."""

    def send(content: bytes | None = None, name: str = "report.pdf", **fields: Any) -> dict[str, Any]:
        file = SimpleUploadedFile(name, samples.pdf() if content is None else content)
        answer = client.post("api/v1/documents", {"title": "Report", "file": file} | fields)
        assert answer.status_code == 202, answer.content
        assert answer["Location"].endswith(f"/documents/{answer.json()['id']}")
        shown: dict[str, Any] = answer.json()
        return shown

    return send


@pytest.fixture
def worked(acme: Any) -> Callable[..., None]:
    """`worked(document)`: a worker takes up the document's job."""

    def work(document: dict[str, Any]) -> None:
        with tenant_scope(acme):
            job = Document.objects.get(pk=document["id"]).job_id
            Job.objects.filter(pk=job, state=JobState.QUEUED).update(due_at=timezone.now())
            work_on(str(job), execution.read)

    return work


class PagesRead(list[int]):
    """The numbers of the pages that workers read, in their order. before: called with each page."""

    before: Callable[[Any], None] = staticmethod(lambda page: None)


@pytest.fixture
def read_pages(monkeypatch: pytest.MonkeyPatch) -> PagesRead:
    """What workers read from now on."""
    seen, read = PagesRead(), Reader.read

    def watched(self: Reader, pages: Any, page: Any) -> Any:
        seen.before(page)
        seen.append(page.number)
        return read(self, pages, page)

    monkeypatch.setattr(Reader, "read", watched)
    return seen
