"""A document and its pages."""

import uuid
from datetime import datetime
from typing import Any, Self

from django.db import models, transaction
from django.db.models import Count, Exists, OuterRef, Q, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from models_registry.models import Bundle, ModelVersion
from tenants.models import Job, JobLost, JobState
from tenants.models.jobs import ENDED

TITLE_CHARS = 200
# of a version: what no list of documents shows, and may have a megabyte each
LONG = tuple(f"version__{name}" for name in ("metadata", "inspection", "signature", "params", "compilation"))
DONE = (JobState.SUCCEEDED, JobState.FAILED)


class DocumentQuerySet(models.QuerySet["Document"]):
    """Sets of documents."""

    def with_standing(self) -> Self:
        """With `done_pages`, `failed_pages` and `found` (detections), in this one query."""
        pages = DocumentPage.objects.filter(document=OuterRef("pk")).order_by().values("document")

        def counted(found: models.Aggregate) -> Coalesce:
            return Coalesce(models.Subquery(pages.annotate(value=found).values("value")), 0)

        related = self.select_related("job", "version", "source", "result").defer(*LONG)
        return related.annotate(
            done_pages=counted(Count("pk", filter=Q(state__in=DONE))),
            failed_pages=counted(Count("pk", filter=Q(state=JobState.FAILED))),
            found=counted(Sum("detection_count")),
        )


class Document(models.Model):
    """A file whose pages a detection model reads; its job tells how far it is.

    source: the bundle whose file `source_path` was uploaded. media_type: by its content.
    page_range: the pages that were asked for, as `page_ranges` writes them; empty for all.
    page_total: the pages of the file. page_count: those that are read. Both null until it was opened.
    result: the bundle with the detections of all pages as COCO JSON, once there is one.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    job = models.OneToOneField(Job, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+")
    title = models.CharField(max_length=TITLE_CHARS)
    version = models.ForeignKey(ModelVersion, null=True, on_delete=models.SET_NULL, related_name="+")
    model_name = models.CharField("model", max_length=100)
    version_number = models.PositiveIntegerField()
    source = models.ForeignKey(Bundle, on_delete=models.PROTECT, related_name="+")
    source_path = models.CharField(max_length=255)
    file_name = models.CharField(max_length=255)
    media_type = models.CharField(max_length=40)
    dpi = models.PositiveIntegerField()
    min_score = models.FloatField()
    page_range = models.CharField(max_length=500, blank=True)
    page_total = models.PositiveIntegerField(null=True)
    page_count = models.PositiveIntegerField(null=True)
    result = models.ForeignKey(Bundle, null=True, on_delete=models.PROTECT, related_name="+")
    created_by = models.CharField(max_length=250, blank=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    objects = DocumentQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.title

    def claim_page(self, job: Job) -> "DocumentPage | None":
        """The next page that nobody works on, claimed for whoever holds this job; None where there is none."""
        with transaction.atomic():
            free = self.pages.claimable(timezone.now()).order_by("number")
            page = free.select_for_update(skip_locked=True, of=("self",)).first()
            if page is None:
                return None
            page.holder, page.fence, page.state = job.pk, job.fence, JobState.RUNNING
            page.attempts += 1
            page.save(update_fields=["holder", "fence", "state", "attempts"])
        return page


class DocumentPageQuerySet(models.QuerySet["DocumentPage"]):
    """Sets of pages."""

    def claimable(self, at: datetime) -> Self:
        """Queued, or left by a worker that no longer holds the job for which it claimed them."""
        held = Job.objects.filter(
            pk=OuterRef("holder"), fence=OuterRef("fence"), state=JobState.RUNNING, lease_until__gt=at
        )
        return self.filter(Q(state=JobState.QUEUED) | (Q(state=JobState.RUNNING) & ~Exists(held)))

    def open(self) -> Self:
        """Neither succeeded, failed nor cancelled."""
        return self.exclude(state__in=ENDED)


class DocumentPage(models.Model):
    """One page of a document, worked on by one worker at a time.

    queued ──> running ──> succeeded
       │          ├──────> failed ────> queued (asked for again)
       └──────────┴──────> cancelled ─┘

    Who works on it holds a job (the document's, or one that helps), and the page as long as the lease of that job:
    `holder` and `fence` name the claim, and what a worker writes is conditional on them. So a page ends once.

    number: in the file, from 1. width_pt, height_pt: of the page; width_px, height_px: of its image.
    bundle: its image and its detections, by `documents.page_files`.
    """

    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="pages")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=10, choices=JobState, default=JobState.QUEUED)
    holder = models.UUIDField(null=True)
    fence = models.PositiveIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(default=0)
    width_pt = models.FloatField()
    height_pt = models.FloatField()
    width_px = models.PositiveIntegerField(null=True)
    height_px = models.PositiveIntegerField(null=True)
    detection_count = models.PositiveIntegerField(null=True)
    error_code = models.CharField(max_length=60, blank=True)
    error_message = models.CharField(max_length=1000, blank=True)
    bundle = models.ForeignKey(Bundle, null=True, on_delete=models.PROTECT, related_name="+")
    duration_s = models.FloatField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects = DocumentPageQuerySet.as_manager()

    class Meta:
        ordering = ("number",)
        constraints = (models.UniqueConstraint(fields=["document", "number"], name="documents_page_once"),)

    def __str__(self) -> str:
        return f"page {self.number}"

    def succeed(self, **found: Any) -> None:
        """End well, with what was found.

        Raises:
            JobLost: another worker has the page, or nobody wants it any more.
        """
        self._while_held(state=JobState.SUCCEEDED, finished_at=timezone.now(), **found)

    def fail(self, code: str, message: str) -> None:
        """End badly, for a reason that another attempt would meet again.

        Raises:
            JobLost: as `succeed` does.
        """
        self._while_held(
            state=JobState.FAILED, error_code=code[:60], error_message=message[:1000], finished_at=timezone.now()
        )

    def release(self) -> None:
        """Give it back for another attempt.

        Raises:
            JobLost: as `succeed` does.
        """
        self._while_held(state=JobState.QUEUED, holder=None)

    def _while_held(self, **changes: Any) -> None:
        held = DocumentPage.objects.filter(pk=self.pk, state=JobState.RUNNING, holder=self.holder, fence=self.fence)
        if not held.update(**changes):
            raise JobLost
        for name, value in changes.items():
            setattr(self, name, value)
