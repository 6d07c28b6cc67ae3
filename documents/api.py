"""Documents over HTTP."""

import uuid
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.urls import path, reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.http import accepted
from common.queries import text_asked
from documents import services
from documents.choosing import detector
from documents.models import Document, DocumentPage
from documents.page_files import found_on, image_file
from documents.serializers import (
    DocumentDetailSerializer,
    DocumentRequestSerializer,
    DocumentSerializer,
    PageDetectionsSerializer,
    PageSerializer,
)
from models_registry.downloads import send_file, send_files, show_file, show_png
from models_registry.quota import check_announced
from models_registry.uploading import Uploading
from tenants.authentication import caller_of
from tenants.idempotency import Idempotent
from tenants.job_api import await_end, wait_asked
from tenants.models import JobState, Scope
from tenants.operations import LOCATION, REFUSED, WAIT
from tenants.serializers import checked

MULTIPART = "multipart/form-data"
FORMATS = ("zip", "coco")
PNG = {(200, "image/png"): OpenApiTypes.BINARY, 409: REFUSED}
STATE = OpenApiParameter("state", enum=JobState.values, description="Only those in this state.")
MODEL = OpenApiParameter("model", str, description="Only those of this model.")
TITLE = OpenApiParameter("title", str, description="Only those whose title has this in it.")
FORMAT = OpenApiParameter("format", enum=FORMATS, description="zip: with the pages' images. coco: COCO JSON alone.")


class DocumentsView(Uploading, Idempotent, ListAPIView[Document]):
    """The tenant's documents."""

    scopes = {"POST": Scope.WRITE}
    serializer_class = DocumentSerializer
    parser_classes = (MultiPartParser,)
    order_fields = ("-created_at", "title")

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method == "POST":  # before the body is read
            announced = int(request.META.get("CONTENT_LENGTH") or 0)
            services.check_size(announced, is_announced=True)
            check_announced(announced)

    def get_queryset(self) -> QuerySet[Document]:
        documents = Document.objects.with_standing()
        if state := text_asked(self.request, "state", JobState.values):
            documents = documents.filter(job__state=state)
        if model := text_asked(self.request, "model"):
            documents = documents.filter(model_name=model)
        if title := text_asked(self.request, "title"):
            documents = documents.filter(title__icontains=title)
        return documents

    @extend_schema(parameters=[STATE, MODEL, TITLE])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    @extend_schema(
        parameters=[LOCATION],
        request={MULTIPART: DocumentRequestSerializer},
        responses={202: DocumentSerializer, 404: REFUSED, 409: REFUSED, 413: REFUSED, 415: REFUSED, 429: REFUSED},
    )
    def post(self, request: Request) -> Response:
        """Have a document's pages read by a detection model."""
        asked = checked(DocumentRequestSerializer, request.data)
        file = asked["file"]
        wanted = services.Wanted(asked["title"], asked["dpi"], asked.get("pages", ""), asked["min_score"]).checked()
        found = detector(asked.get("model", ""), {"version": asked.get("version")})
        document = services.submit_document(
            wanted=wanted,
            file=services.store_file(file, size_bytes=file.size, file_name=file.name),
            route=found,
            actor=caller_of(request).name,
        )
        shown = _document(document.pk)
        return accepted(DocumentSerializer(shown).data, reverse("document", args=[document.pk]))


class DocumentView(APIView):
    """One document."""

    scopes = {"DELETE": Scope.WRITE}

    @extend_schema(responses=DocumentDetailSerializer, parameters=[WAIT])
    def get(self, request: Request, document_id: uuid.UUID) -> Response:
        """How far it is, page by page; with `wait`, once it has ended, or after so many seconds."""
        document = _document(document_id)
        if (wait_s := wait_asked(request)) and not document.job.has_ended:
            await_end(document.job, wait_s)
            document = _document(document_id)
        return Response(DocumentDetailSerializer(document).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, document_id: uuid.UUID) -> Response:
        """Remove it with all that was found; its reading ends where it goes on."""
        services.delete_document(document=_document(document_id), actor=caller_of(request).name)
        return Response(status=204)


class DocumentCancelView(APIView):
    """Ending the reading of a document."""

    scopes = {"POST": Scope.WRITE}

    @extend_schema(request=None, responses={200: DocumentSerializer, 409: REFUSED})
    def post(self, request: Request, document_id: uuid.UUID) -> Response:
        """End it whether it is queued or running; pages that were read stay. 409 where it has ended already."""
        services.cancel_document(document=_document(document_id), actor=caller_of(request).name)
        return Response(DocumentSerializer(_document(document_id)).data)


class DocumentRetryView(Idempotent):
    """Trying pages again."""

    scopes = {"POST": Scope.WRITE}

    @extend_schema(parameters=[LOCATION], request=None, responses={202: DocumentSerializer, 409: REFUSED, 429: REFUSED})
    def post(self, request: Request, document_id: uuid.UUID) -> Response:
        """Read the pages again that failed or were not read; 409 where it has not ended, or there are none."""
        services.retry_document(document=_document(document_id), actor=caller_of(request).name)
        return accepted(DocumentSerializer(_document(document_id)).data, reverse("document", args=[document_id]))


class DocumentResultView(APIView):
    """All that was found in a document."""

    @extend_schema(
        parameters=[FORMAT],
        responses={
            (200, "application/zip"): OpenApiTypes.BINARY,
            (200, "application/json"): OpenApiTypes.OBJECT,
            409: REFUSED,
        },
    )
    def get(self, request: Request, document_id: uuid.UUID) -> StreamingHttpResponse:
        """COCO JSON, alone or in a zip with each page's image and detections; 409 while there is none."""
        document = _document(document_id)
        if text_asked(request, "format", FORMATS) == "coco":
            return send_file(services.coco_file(document), "application/json")
        return send_files(services.all_files(document), f"{document.pk}.zip", str(document.job_id))


class PageView(APIView):
    """One page of a document."""

    @extend_schema(responses=PageDetectionsSerializer)
    def get(self, request: Request, document_id: uuid.UUID, number: int) -> Response:
        """What was found on it: labels, scores, and boxes in pixels and in points."""
        page = _page(document_id, number)
        detections = found_on(page)["detections"] if page.bundle_id else None
        return Response({**PageSerializer(page).data, "detections": detections})


class PageImageView(APIView):
    """A page's image."""

    @extend_schema(responses=PNG)
    def get(self, request: Request, document_id: uuid.UUID, number: int) -> StreamingHttpResponse:
        """The page as it was drawn for the model, as PNG; 409 where it was not read."""
        return show_file(image_file(_page(document_id, number)), "image/png")


class PageOverlayView(APIView):
    """A page's image with its detections."""

    @extend_schema(responses=PNG)
    def get(self, request: Request, document_id: uuid.UUID, number: int) -> HttpResponse:
        """The page with boxes, labels and scores drawn in, as PNG; 409 where it was not read."""
        return show_png(services.overlay(_page(document_id, number)))


class PageCropView(APIView):
    """One detection of a page as an image."""

    @extend_schema(responses=PNG)
    def get(self, request: Request, document_id: uuid.UUID, number: int, place: int) -> HttpResponse:
        """What the box of one detection holds, as PNG; they are counted from 0, in the order of the page's list."""
        return show_png(services.crop(_page(document_id, number), place))


def _document(document_id: uuid.UUID) -> Document:
    return get_object_or_404(Document.objects.with_standing(), pk=document_id)


def _page(document_id: uuid.UUID, number: int) -> DocumentPage:
    return get_object_or_404(DocumentPage, document=document_id, number=min(number, 2**31 - 1))


api_urlpatterns = [
    path("documents", DocumentsView.as_view(), name="documents"),
    path("documents/<uuid:document_id>", DocumentView.as_view(), name="document"),
    path("documents/<uuid:document_id>/cancel", DocumentCancelView.as_view(), name="document-cancel"),
    path("documents/<uuid:document_id>/retry", DocumentRetryView.as_view(), name="document-retry"),
    path("documents/<uuid:document_id>/result", DocumentResultView.as_view(), name="document-result"),
    path("documents/<uuid:document_id>/pages/<int:number>", PageView.as_view(), name="document-page"),
    path("documents/<uuid:document_id>/pages/<int:number>/image", PageImageView.as_view(), name="document-page-image"),
    path(
        "documents/<uuid:document_id>/pages/<int:number>/overlay",
        PageOverlayView.as_view(),
        name="document-page-overlay",
    ),
    path(
        "documents/<uuid:document_id>/pages/<int:number>/crops/<int:place>",
        PageCropView.as_view(),
        name="document-page-crop",
    ),
]
