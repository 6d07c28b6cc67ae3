"""What a caller can ask for about documents."""

import uuid
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO

from django.conf import settings
from django.db import transaction

from common.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable, UnsupportedMedia
from documents import page_ranges
from documents.coco import RESULT_PATH
from documents.execution import ATTEMPTS, HELP, READ, call_helpers, end_pages
from documents.models import TITLE_CHARS, Document, DocumentPage
from documents.page_files import detections_on, image_file, page_files
from inference.predictions import error_of
from inference.routing import Route
from models_registry.blobs import IncomingFile, open_file, store_bundle
from models_registry.models import Bundle, BundleFile
from models_registry.quota import ENVELOPE_BYTES, check_room, claim_room
from models_registry.services import hold_version
from runtimes import errors as faults
from runtimes.client import HostClient
from runtimes.page_work import SNIFFED_BYTES, media_type_of
from tenants import jobs
from tenants.audit import record
from tenants.models import Job, JobState

SUFFIXES = {
    "application/pdf": "pdf",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/tiff": "tiff",
    "image/webp": "webp",
}
DEFAULT_DPI, LEAST_DPI = 150, 36
DEFAULT_MIN_SCORE = 0.5
MOST_OPEN = 20


@dataclass(frozen=True)
class Wanted:
    """How a document is to be read. pages: as `page_ranges` reads them; empty for all. min_score: what is less sure
    is left out."""

    title: str
    dpi: int = DEFAULT_DPI
    pages: str = ""
    min_score: float = DEFAULT_MIN_SCORE

    def checked(self) -> "Wanted":
        """The same in the one way to write it.

        Raises:
            Invalid: a value is not right; its field is named.
        """
        title = " ".join(self.title.split())
        if not title or len(title) > TITLE_CHARS:
            raise Invalid(f"A title has 1 to {TITLE_CHARS} characters.", fields={"title": "is empty or too long"})
        if not LEAST_DPI <= self.dpi <= settings.DOCUMENT_MAX_DPI:
            told = f"dpi is from {LEAST_DPI} to {settings.DOCUMENT_MAX_DPI}."
            raise Invalid(told, fields={"dpi": str(self.dpi)[:20]})
        if not 0 <= self.min_score <= 1:
            raise Invalid("min_score is from 0 to 1.", fields={"min_score": str(self.min_score)[:20]})
        return Wanted(title, self.dpi, page_ranges.written(page_ranges.parsed(self.pages)), self.min_score)


@dataclass(frozen=True)
class StoredFile:
    """A document's file, stored."""

    bundle: Bundle
    path: str
    name: str
    media_type: str


def check_size(size_bytes: int, *, is_announced: bool = False) -> None:
    """Go on only with what a document may have. is_announced: by a Content-Length, which counts a little more.

    Raises:
        TooLarge: it is more.
    """
    most = settings.DOCUMENT_MAX_BYTES
    if size_bytes > most + (ENVELOPE_BYTES if is_announced else 0):
        raise TooLarge(
            f"The document has {size_bytes} bytes; documents have at most {most}.", code="document_too_large"
        )


def store_file(file: BinaryIO, *, size_bytes: int, file_name: str) -> StoredFile:
    """An uploaded document, stored; what it is is told by its first bytes.

    Raises:
        UnsupportedMedia: it is none of the kinds that are read. Invalid: it is empty.
        TooLarge, Denied: over what a document may have, or the tenant's quota.
    """
    if size_bytes == 0:
        raise Invalid("The file is empty.", code="empty_document", fields={"file": "is empty"})
    check_size(size_bytes)
    media_type = media_type_of(file.read(SNIFFED_BYTES))
    file.seek(0)
    if media_type not in SUFFIXES:
        raise UnsupportedMedia("Documents are PDF, PNG, JPEG, TIFF or WebP; by its content this is none of them.")
    check_room(size_bytes)
    path = f"document.{SUFFIXES[media_type]}"
    bundle = store_bundle([IncomingFile(path, file)])
    return StoredFile(bundle, path, PurePath(file_name).name[:255] or path, media_type)


@transaction.atomic
def submit_document(*, wanted: Wanted, file: StoredFile, route: Route, actor: str) -> Document:
    """Queue the reading of a document by the version that the route names now.

    Raises:
        Conflict: the version was deleted meanwhile. Throttled: the tenant has as many open ones as it may have.
        TooLarge, Denied: it is over the tenant's quota. Invalid: a wish is not right.
    """
    wanted = wanted.checked()
    hold_version(route.version.pk, f"Version {route.version.number} of {route.model_name}")
    jobs.require_room(READ, MOST_OPEN, "documents")
    claim_room(file.bundle)
    document_id = uuid.uuid4()
    document = Document.objects.create(
        id=document_id,
        job=jobs.submit(READ, document_id.hex, max_attempts=ATTEMPTS),
        title=wanted.title,
        version_id=route.version.pk,
        model_name=route.model_name,
        version_number=route.version.number,
        source=file.bundle,
        source_path=file.path,
        file_name=file.name,
        media_type=file.media_type,
        dpi=wanted.dpi,
        min_score=wanted.min_score,
        page_range=wanted.pages,
        created_by=actor,
    )
    record(actor=actor, action="document.submit", target=document.title, bytes=file.bundle.size_bytes)
    return document


@transaction.atomic
def cancel_document(*, document: Document, actor: str) -> None:
    """End the reading of a document that is queued or running; again is no error. Pages that were read stay.

    Raises:
        Conflict: it has ended already.
    """
    was_cancelled = document.job.state == JobState.CANCELLED
    document.job.cancel()
    end_pages(document)
    if not was_cancelled:
        record(actor=actor, action="document.cancel", target=document.title)


@transaction.atomic
def retry_document(*, document: Document, actor: str) -> Document:
    """Have the pages read again that failed or were not read; the others stay as they are.

    Raises:
        Conflict: it has not ended, or every page was read, or the version was deleted.
        Throttled: the tenant has as many open ones as it may have.
    """
    document = Document.objects.select_for_update(of=("self",)).select_related("job").get(pk=document.pk)
    ended = document.job
    if not ended.has_ended:
        raise Conflict(f"The document is {ended.state}; wait for its end, or cancel it.", code="document_not_ended")
    left = document.pages.exclude(state=JobState.SUCCEEDED)
    if ended.state == JobState.SUCCEEDED and not left.exists():
        raise Conflict("Every page was read; there is nothing to try again.", code="nothing_to_retry")
    if document.version_id is None:
        raise Conflict("The version was deleted; send the document again for another.", code="version_deleted")
    hold_version(document.version_id, f"Version {document.version_number} of {document.model_name}")
    jobs.require_room(READ, MOST_OPEN, "documents")
    again = left.update(
        state=JobState.QUEUED, holder=None, attempts=0, error_code="", error_message="", finished_at=None
    )
    document.job, document.result = jobs.submit(READ, document.pk.hex, max_attempts=ATTEMPTS), None
    document.save(update_fields=["job", "result"])
    Job.objects.filter(pk=ended.pk).delete()
    call_helpers(document, again)
    record(actor=actor, action="document.retry", target=document.title, pages=again)
    return document


@transaction.atomic
def delete_document(*, document: Document, actor: str) -> None:
    """Remove a document and what was found in it; its reading ends where it goes on."""
    end_pages(document)
    Job.objects.filter(kind=HELP, object_id=document.pk.hex).delete()
    key = document.job_id
    Document.objects.filter(pk=document.pk).delete()
    Job.objects.filter(pk=key).delete()
    record(actor=actor, action="document.delete", target=document.title)


def coco_file(document: Document) -> BundleFile:
    """The COCO file of all that was found.

    Raises:
        Conflict: there is none yet, or there will be none. NotFound: it is no longer kept.
    """
    if document.result is None:
        raise Conflict(f"The document is {document.job.state}; it has no result.", code="no_result")
    file = document.result.files.select_related("blob").filter(path=RESULT_PATH).first()
    if file is None:
        raise NotFound("The result is no longer kept.")
    return file


def all_files(document: Document) -> list[BundleFile]:
    """The COCO file, and the image and the detections of each page.

    Raises:
        Conflict, NotFound: as `coco_file` does.
    """
    return [coco_file(document), *page_files(document)]


def overlay(page: DocumentPage) -> bytes:
    """A PNG of the page with its detections drawn in, made now by a confined runner.

    Raises:
        Conflict: the page was not read. Unavailable: this machine has no model host, or it is away.
    """
    png, boxes = _image(page), detections_on(page)
    try:
        return _host().draw(png, boxes)
    except faults.RuntimeFault as fault:
        raise error_of(fault) from fault


def crop(page: DocumentPage, place: int) -> bytes:
    """A PNG of what one detection's box holds, made in the same way.

    Raises:
        NotFound: there is no such detection. Conflict, Unavailable: as `overlay` does.
    """
    boxes = detections_on(page)
    if place >= len(boxes):
        raise NotFound(f"Page {page.number} has {len(boxes)} detections; they are counted from 0.")
    try:
        return _host().crop(_image(page), boxes[place].box)
    except faults.RuntimeFault as fault:
        raise error_of(fault) from fault


def _image(page: DocumentPage) -> bytes:
    with open_file(image_file(page)) as file:
        return file.read()


def _host() -> HostClient:
    if not settings.MODELS_SOCKET:
        raise Unavailable(
            "Pictures are drawn where there is a model host, and this machine has none; use the page's image and its "
            "boxes instead.",
            code="host_unavailable",
        )
    return HostClient(settings.MODELS_SOCKET)
