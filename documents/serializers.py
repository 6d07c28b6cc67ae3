"""Documents as JSON."""

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from documents import page_ranges
from documents.models import TITLE_CHARS, Document, DocumentPage
from documents.services import DEFAULT_DPI, DEFAULT_MIN_SCORE, LEAST_DPI
from tenants.job_api import JobErrorSerializer, ProgressSerializer
from tenants.models import JobState
from tenants.serializers import NameField, PatternField, Strict


class PageErrorSerializer(serializers.Serializer[DocumentPage]):
    """Why a page could not be read."""

    code = serializers.CharField(source="error_code")
    message = serializers.CharField(source="error_message")


class PageSerializer(serializers.Serializer[DocumentPage]):
    """A page of a document. detection_count: null until it was read."""

    number = serializers.IntegerField()
    state = serializers.ChoiceField(choices=JobState.choices)
    error = serializers.SerializerMethodField()
    width_pt = serializers.FloatField()
    height_pt = serializers.FloatField()
    width_px = serializers.IntegerField(allow_null=True)
    height_px = serializers.IntegerField(allow_null=True)
    detection_count = serializers.IntegerField(allow_null=True)
    duration_s = serializers.FloatField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)

    @extend_schema_field(PageErrorSerializer(allow_null=True))
    def get_error(self, page: DocumentPage) -> dict[str, Any] | None:
        return dict(PageErrorSerializer(page).data) if page.error_code else None


class DetectionSerializer(serializers.Serializer[Any]):
    """One thing on a page.

    box_px: x0, y0, x1, y1 in the page's image. box_pt: the same in points of the page (1/72 inch), from its upper left
    corner. polygon_px: the corners of its outline, where the model gives one.
    """

    label = serializers.CharField()  # type: ignore[assignment]  # a field's own, which a field of this name hides
    score = serializers.FloatField()
    box_px = serializers.ListField(child=serializers.FloatField(), min_length=4, max_length=4)
    box_pt = serializers.ListField(child=serializers.FloatField(), min_length=4, max_length=4)
    polygon_px = serializers.ListField(
        child=serializers.ListField(child=serializers.FloatField(), min_length=2, max_length=2), allow_null=True
    )


class PageDetectionsSerializer(PageSerializer):
    """A page with what was found on it, the surest first; null until it was read."""

    detections = serializers.ListField(child=DetectionSerializer(), allow_null=True)


class DocumentSerializer(serializers.Serializer[Document]):
    """A document with how far its reading is.

    page_total: the pages of the file. page_count: those that are read; both null until it was opened.
    """

    id = serializers.UUIDField()
    kind = serializers.CharField(source="job.kind")
    state = serializers.ChoiceField(choices=JobState.choices, source="job.state")
    progress = ProgressSerializer(source="job")
    error = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True, source="job.started_at")
    finished_at = serializers.DateTimeField(allow_null=True, source="job.finished_at")
    title = serializers.CharField()
    file_name = serializers.CharField()
    media_type = serializers.CharField()
    size_bytes = serializers.IntegerField(source="source.size_bytes")
    model = serializers.CharField(source="model_name")
    version = serializers.IntegerField(source="version_number")
    dpi = serializers.IntegerField()
    min_score = serializers.FloatField()
    page_range = serializers.CharField(allow_blank=True)
    page_total = serializers.IntegerField(allow_null=True)
    page_count = serializers.IntegerField(allow_null=True)
    done_pages = serializers.IntegerField()
    failed_pages = serializers.IntegerField()
    detection_count = serializers.IntegerField(source="found")

    @extend_schema_field(JobErrorSerializer(allow_null=True))
    def get_error(self, document: Document) -> dict[str, Any] | None:
        return dict(JobErrorSerializer(document.job).data) if document.job.error_code else None


class DocumentDetailSerializer(DocumentSerializer):
    """A document with each of its pages."""

    pages = serializers.SerializerMethodField()

    @extend_schema_field(PageSerializer(many=True))
    def get_pages(self, document: Document) -> list[Any]:
        pages: Any = document.pages.order_by("number")
        return list(PageSerializer(pages, many=True).data)


class DocumentRequestSerializer(Strict):
    """A multipart upload.

    file: PDF, PNG, JPEG, TIFF or WebP, told by its content. model: a detection model; the tenant's only one if absent.
    pages: such as `1-3,7`; all if absent. min_score: what is less sure is left out.
    """

    title = serializers.CharField(max_length=TITLE_CHARS)
    file = serializers.FileField(allow_empty_file=True)
    model = NameField(required=False)
    version = serializers.IntegerField(min_value=1, max_value=2**31 - 1, required=False)
    dpi = serializers.IntegerField(min_value=LEAST_DPI, max_value=settings.DOCUMENT_MAX_DPI, default=DEFAULT_DPI)
    pages = PatternField(page_ranges.PATTERN, required=False, max_length=page_ranges.MOST_CHARS)
    min_score = serializers.FloatField(min_value=0, max_value=1, default=DEFAULT_MIN_SCORE)
