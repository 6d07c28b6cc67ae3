"""What workers do with a document: one leads, others help, and each claims its pages one at a time.

The lead holds the document's job: it opens the file, lays out the pages, reads some itself, and ends the job with the
last one. Helpers hold jobs of their own, so that any worker of any machine may be one; nobody waits for them, since the
lead would read every page alone.
"""

import tempfile
import time
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from common.errors import Conflict, Invalid, PlatformError, TimedOut, Unavailable
from documents import page_ranges
from documents.coco import RESULT_PATH, write_coco
from documents.models import Document, DocumentPage
from documents.page_files import store_page
from documents.reading import PageFault, Reader, opened
from inference.batch.work import AGAIN_SOON, ALL, SEATS, do_others_wait
from inference.served import Served
from models_registry.blobs import IncomingFile, store_bundle
from models_registry.quota import claim_room
from models_registry.spooling import spool_folder
from runtimes import errors as faults
from runtimes.page_work import Document as OpenDocument
from tenants import jobs
from tenants.models import Job, JobLost, JobState, TenantState

READ, HELP = "documents.read", "documents.help"
ATTEMPTS = 20  # each goes on with the pages that are left
PAGE_ATTEMPTS = 5  # a page that takes so many workers with it is given up
RENDER_ATTEMPTS = 2
CRASHES = (faults.RunnerDied.code, faults.ProtocolFault.code)
CRASHES_ALLOWED = 2  # of the runner that has the document open
OPEN_ANEW_AFTER = 200  # pages, so that what a runner keeps of them is bounded
SLICE_S = 30.0
LOOK_EVERY_S = 1.0
WAIT_S = 0.2
MOST_PERCENT = 98.0


def read(job: Job) -> None:
    """Read the job's document, a turn at a time, and end the job with the last page.

    Raises:
        Conflict: the version was deleted. Invalid: the file cannot be read, or none of its pages.
        TimedOut: it took longer than documents may.
        Unavailable: a part of the platform is away; the job may go on later.
        JobLost: it was cancelled, or taken by another worker.
    """
    document = Document.objects.select_related("version", "job", "source").filter(job=job.pk).first()
    if document is None:
        raise JobLost
    with SEATS.seat(ALL, most_each=max(1, settings.BATCH_THREADS // 2)) as is_seated:
        if not is_seated or _is_crowded(job):
            job.postpone(AGAIN_SOON)
            return
        try:
            _Lead(job, document).go_on()
        except Unavailable as error:
            if error.code not in CRASHES or job.attempts <= CRASHES_ALLOWED:
                raise
            end_pages(document)
            told = "Opening the document crashed, however often it was tried; it is damaged, or too large."
            raise Invalid(told, code="unreadable_document") from error
        except PlatformError:
            end_pages(document)
            raise


def help_read(job: Job) -> None:
    """Read pages of the document that the job names, as long as there are some and its own job is open."""
    document = Document.objects.select_related("version", "job", "source").filter(pk=job.object_id).first()
    if document is None or document.job.has_ended:
        job.succeed()
        return
    with SEATS.seat(ALL, most_each=max(1, settings.BATCH_THREADS // 2)) as is_seated:
        if not is_seated or _is_crowded(job):
            job.postpone(AGAIN_SOON)
            return
        if _Turn(job, document).take():
            job.succeed()
        else:
            job.postpone(timedelta())


def end_pages(document: Document) -> None:
    """Nobody reads the pages that are left; call it where the document's job ends before them."""
    document.pages.open().update(state=JobState.CANCELLED, holder=None)
    helpers = Job.objects.open().filter(kind=HELP, object_id=document.pk.hex)
    helpers.update(state=JobState.CANCELLED, lease_until=None, finished_at=timezone.now())


def call_helpers(document: Document, pages: int) -> None:
    """Ask as many workers for help as there are pages for; call it in the transaction that lays the pages out."""
    for _ in range(min(settings.DOCUMENT_WORKERS, pages) - 1):
        jobs.submit(HELP, document.pk.hex, max_attempts=ATTEMPTS)


def _is_crowded(job: Job) -> bool:
    """Whether the tenant has as many workers at its documents as it may have, all of whom began before this one."""
    same = Job.objects.filter(
        tenant=job.tenant_id, kind__in=(READ, HELP), state=JobState.RUNNING, lease_until__gt=timezone.now()
    )
    return same.filter(started_at__lt=job.started_at).exclude(pk=job.pk).count() >= settings.DOCUMENT_WORKERS


class _Turn:
    """One worker's turn at a document's pages."""

    def __init__(self, job: Job, document: Document) -> None:
        self._job, self._document = job, document
        if document.version is None:
            raise Conflict("The version was deleted; send the document again for another.", code="version_deleted")
        self._version = Served.of(document.version)
        self._reader = Reader(document, self._version, is_over=self._nobody_wants_it)
        self._looked_at = time.monotonic()
        self._turn_until = self._looked_at + SLICE_S
        self._is_turn_over = False

    def take(self) -> bool:
        """Read pages until none is left that may be claimed (True), or others have waited for their turn (False)."""
        while not self._is_turn_over and self._is_more():
            with opened(self._document) as pages:
                self._work_through(pages)
        return not self._is_turn_over

    def _is_more(self) -> bool:
        return self._document.pages.claimable(timezone.now()).exists()

    def _work_through(self, pages: OpenDocument) -> None:
        """Read page after page, until the document has to be opened anew or there is nothing left to do."""
        for _ in range(OPEN_ANEW_AFTER):
            self._look()
            page = self._document.claim_page(self._job)
            if page is None or not self._work_on(pages, page):
                return
            self._report()
            if self._are_others_due():
                return

    def _work_on(self, pages: OpenDocument, page: DocumentPage) -> bool:
        """Read one page and keep what was found; whether the next one can be read in the same runner."""
        began = time.monotonic()
        if page.attempts > PAGE_ATTEMPTS:
            page.fail("worker_lost", "The workers that read this page were lost, too many times to try again.")
            return True
        try:
            found = self._reader.read(pages, page)
        except PageFault as fault:
            if fault.may_pass and page.attempts < RENDER_ATTEMPTS:
                page.release()
            else:
                page.fail(fault.code, fault.message)
            return not fault.is_broken
        bundle = store_page(page.number, found)
        height, width = found.size
        with self._job.writing():
            claim_room(bundle)
            page.succeed(
                bundle=bundle,
                width_px=width,
                height_px=height,
                detection_count=len(found.detections),
                duration_s=round(time.monotonic() - began, 3),
            )
        return True

    def _look(self) -> None:
        """Go on only while the document is wanted.

        Raises:
            JobLost: it was cancelled or deleted, or has ended. Unavailable: its tenant was suspended.
        """
        self._job.renew()
        wanted = Job.objects.open().filter(pk=self._document.job_id)
        state = wanted.values_list("tenant__state", flat=True).first()
        if state is None:
            raise JobLost
        if state != TenantState.ACTIVE:
            raise Unavailable("The tenant is suspended; its documents wait.", code="tenant_suspended")

    def _report(self) -> None:
        """Show how far it is; a helper has nothing to show."""

    def _are_others_due(self) -> bool:
        now = time.monotonic()
        if now >= self._turn_until:
            self._turn_until = now + LOOK_EVERY_S
            self._is_turn_over = do_others_wait()
        return self._is_turn_over

    def _nobody_wants_it(self) -> bool:
        """Whether the document was cancelled or the job taken; asked often, looked up once a second."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_EVERY_S:
            return False
        self._looked_at = now
        try:
            self._look()
        except JobLost:
            return True
        return False


class _Lead(_Turn):
    """The turn of the worker that holds the document's own job."""

    def go_on(self) -> None:
        """Read what is left, and end the job once every page has ended."""
        if self._document.page_count is None:
            self._job.report(0, "opening")
            with opened(self._document) as pages:
                self._lay_out(pages)
                self._work_through(pages)
        while not self._is_turn_over and self._document.pages.open().exists():
            if self.take() and self._document.pages.open().exists():
                time.sleep(WAIT_S)  # helpers have the last ones; of one that is lost, its page can be claimed soon
                self._look()
                self._report()
        if self._is_turn_over:
            self._job.postpone(timedelta())
        else:
            self._end()

    def _lay_out(self, pages: OpenDocument) -> None:
        """Write down which pages there are to read, and call for help."""
        numbers = page_ranges.pages_of(page_ranges.parsed(self._document.page_range), len(pages.pages))
        if len(numbers) > settings.DOCUMENT_MAX_PAGES:
            raise Invalid(
                f"The document has {len(numbers)} pages, and {settings.DOCUMENT_MAX_PAGES} are read at most; "
                'name some of them, such as pages="1-100".',
                code="too_many_pages",
            )
        with transaction.atomic():
            self._job.report(0, f"page 0 of {len(numbers)}")
            self._document.page_total, self._document.page_count = len(pages.pages), len(numbers)
            self._document.save(update_fields=["page_total", "page_count"])
            DocumentPage.objects.bulk_create(
                DocumentPage(
                    document=self._document,
                    number=number,
                    width_pt=pages.pages[number - 1].width_pt,
                    height_pt=pages.pages[number - 1].height_pt,
                )
                for number in numbers
            )
            call_helpers(self._document, len(numbers))

    def _look(self) -> None:
        super()._look()
        began = self._job.started_at
        if began and timezone.now() - began > timedelta(seconds=settings.DOCUMENT_SECONDS):
            done = self._document.pages.count() - self._document.pages.open().count()
            raise TimedOut(
                f"The document took longer than {settings.DOCUMENT_SECONDS} s; {done} of "
                f"{self._document.page_count} pages were done by then. Retry it to have the others read.",
                code="document_too_long",
            )

    def _report(self) -> None:
        total = self._document.page_count or 1
        done = total - self._document.pages.open().count()
        self._job.report(MOST_PERCENT * done / total, f"page {done} of {total}")

    def _end(self) -> None:
        """Store what all pages came to and end the job, both or none of it."""
        failed = self._document.pages.filter(state=JobState.FAILED).order_by("number")
        if (first := failed.first()) and not self._document.pages.filter(state=JobState.SUCCEEDED).exists():
            raise Invalid(f"No page could be read. Page {first.number}: {first.error_message}", code=first.error_code)
        self._job.report(99, "storing")
        labels = [str(name) for name in self._version.signature.classes or ()]
        with tempfile.TemporaryFile(dir=spool_folder()) as out:
            write_coco(self._document, labels, out)
            out.seek(0)
            bundle = store_bundle([IncomingFile(RESULT_PATH, out)])
        with transaction.atomic():
            claim_room(bundle)
            Document.objects.filter(pk=self._document.pk).update(result=bundle)
            self._job.succeed()
            end_pages(self._document)  # helpers that never had a turn
