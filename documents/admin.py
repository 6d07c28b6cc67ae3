"""Pages of documents: send one, watch it, look at what was found on each page."""

from typing import Any, ClassVar
from zlib import crc32

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import path, reverse
from unfold.widgets import UnfoldAdminDecimalFieldWidget

from common.errors import PlatformError
from common.queries import whole_number_asked
from documents import services
from documents.choosing import detector, detectors
from documents.models import Document, DocumentPage
from documents.page_files import found_on, image_file
from models_registry.downloads import send_file, send_files, show_file, show_png
from runtimes.page_limits import MAX_PAGES
from tenants.models import JobState, Scope
from tenants.site.forms import NumberField, PageForm, TextField
from tenants.site.pages import Question, answers, column, moment_column, object_action, page_url
from tenants.site.parts import Facts, Part, Table, link, size, when
from tenants.site.sites import Nav, tenant_site
from tenants.site.work import WorkPages, state_label

SHOWN_PAGES = 100
HUES = 8
NO_DETECTOR = (
    "No detection model serves here yet: upload one (an ONNX detector, a detectron2 .pth with its config.yaml, or one "
    "that the trainer page_detector made) and activate it first."
)


class DocumentForm(PageForm):
    """A document, and which model is to read it."""

    rare: ClassVar = ("pages", "dpi", "min_score")

    title = TextField(max_length=200, help_text="What people are to call it.")
    file = forms.FileField(widget=forms.FileInput, help_text="A PDF, PNG, JPEG, TIFF or WebP file.")
    model = TextField(
        max_length=100, required=False, help_text="A detection model that serves; the only one if this is empty."
    )
    pages = TextField(required=False, max_length=500, help_text="Such as 1-3,7; all if this is empty.")
    dpi = NumberField(
        required=False, label="Resolution", help_text="Dots an inch at which the pages of a PDF are drawn."
    )
    min_score = forms.FloatField(
        required=False,
        label="Least score",
        widget=UnfoldAdminDecimalFieldWidget,
        help_text="Detections that the model is less sure of are left out: from 0 to 1.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["dpi"].initial, self.fields["min_score"].initial = services.DEFAULT_DPI, services.DEFAULT_MIN_SCORE
        self.fields["model"].widget.attrs["list"] = "suggested-model"
        self.suggestions = {"model": detectors()}

    def wanted(self) -> services.Wanted:
        """How the document is to be read."""
        said = self.cleaned_data
        dpi, least = said["dpi"], said["min_score"]
        return services.Wanted(
            said["title"],
            services.DEFAULT_DPI if dpi is None else dpi,
            said["pages"],
            services.DEFAULT_MIN_SCORE if least is None else least,
        ).checked()


@admin.register(Document, site=tenant_site)
class DocumentPages(WorkPages):
    """The tenant's documents."""

    add = Scope.WRITE
    add_title = "Send a document"
    none_yet = "A PDF or an image is read page by page by a detection model; one has to serve first."
    nav = Nav("Models", "find_in_page", 26, "Documents")
    list_display = ("title", "shown_state", "progress", "pages", "detections", "model_name", "sent")
    sent = moment_column("Sent", "created_at")
    list_filter = ("job__state", "media_type")
    search_fields = ("title", "file_name", "model_name", "created_by")
    actions_detail = ("look", "download", "download_coco", "retry", "cancel", "remove")
    work = "reading"
    when_cancelled = "Pages that were read stay, and the others can be read later by a retry."

    def get_queryset(self, request: HttpRequest) -> QuerySet[Document]:
        return Document.objects.with_standing()

    def get_urls(self) -> list[Any]:
        views = {"": ("page", self.page_view), "image/": ("image", self.image), "overlay/": ("overlay", self.overlay)}
        own = [
            path(
                f"<path:object_id>/pages/<int:number>/{end}",
                self.admin_site.admin_view(view),
                name=f"documents_document_{name}",
            )
            for end, (name, view) in views.items()
        ]
        return [*own, *super().get_urls()]

    @column("Pages", ordering="page_count")
    def pages(self, document: Document) -> str:
        failed = getattr(document, "failed_pages", 0)
        counted = "" if document.page_count is None else str(document.page_count)
        return f"{counted}, {failed} failed" if failed else counted

    @column("Detections")
    def detections(self, document: Document) -> int:
        return int(getattr(document, "found", 0))

    def parts(self, request: HttpRequest, obj: Document) -> list[Part]:
        return [Part("Document", Facts(self._facts(obj))), *self._failed(obj), self._pages(request, obj)]

    def _facts(self, document: Document) -> dict[str, Any]:
        job, version = document.job, document.version
        named = f"{document.model_name} v{document.version_number}"
        return {
            "State": state_label(job.state),
            "Progress": self.progress(document),
            "Error": job.error_message,
            "Model": link(page_url(version, "change", version.pk), named) if version else named,
            "File": f"{document.file_name}, {size(document.source.size_bytes)}",
            "Pages": _counted(document),
            "Detections": f"{self.detections(document):,}" if document.page_count else "",
            "Resolution": f"{document.dpi} dpi" if document.media_type == "application/pdf" else "",
            "Least score": document.min_score,
            "Sent by": document.created_by,
            "Sent": when(document.created_at),
            "Started": when(job.started_at),
            "Ended": when(job.finished_at),
        }

    def _failed(self, document: Document) -> list[Part]:
        failed = list(document.pages.filter(state=JobState.FAILED).order_by("number")[:SHOWN_PAGES])
        rows = [(page.number, page.error_message) for page in failed]
        notes = ["The other pages are not touched by this. Retry reads these again."]
        return [Part("Pages that failed", Table(("Page", "Why"), rows), notes=notes)] if rows else []

    def _pages(self, request: HttpRequest, document: Document) -> Part:
        try:
            first = whole_number_asked(request, "from", 1, MAX_PAGES)
        except PlatformError:
            first = 1
        pages = list(document.pages.order_by("number")[first - 1 : first + SHOWN_PAGES])
        rows = [self._row(document, page) for page in pages[:SHOWN_PAGES]]
        more = (f"?from={first + SHOWN_PAGES}", "The next pages") if len(pages) > SHOWN_PAGES else None
        ended = "No page was read." if document.job.has_ended else "They are listed once the document has been opened."
        headers = ("Page", "State", "Detections", "Image", "Took")
        return Part("Pages", Table(headers, rows, ended), more, is_wide=True)

    def _row(self, document: Document, page: DocumentPage) -> tuple[Any, ...]:
        name = f"Page {page.number}"
        return (
            link(_page_path(document, page.number), name) if page.bundle_id else name,
            state_label(page.state),
            page.detection_count,
            f"{page.width_px} by {page.height_px}" if page.width_px else "",
            f"{page.duration_s:.1f} s" if page.duration_s is not None else "",
        )

    def applies(self, action: str, obj: Document) -> bool:
        match action:
            case "look":
                return obj.pages.exclude(bundle=None).exists()
            case "download" | "download_coco":
                return obj.result_id is not None
            case "retry":
                is_whole = obj.job.state == JobState.SUCCEEDED and not getattr(obj, "failed_pages", 0)
                return obj.job.has_ended and not is_whole
            case _:
                return super().applies(action, obj)

    def stop(self, obj: Document, actor: str) -> None:
        services.cancel_document(document=obj, actor=actor)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        self.require_add(request)
        caller = self.caller(request)
        form = answers(DocumentForm, request, initial={"model": request.GET.get("model", "")})

        def act(said: dict[str, Any]) -> HttpResponse:
            wanted, file = form.wanted(), said["file"]
            found = detector(said["model"], {})
            stored = services.store_file(file, size_bytes=file.size, file_name=file.name)
            document = services.submit_document(wanted=wanted, file=stored, route=found, actor=caller.name)
            return HttpResponseRedirect(self.url("change", document.pk))

        says = ["Each page is drawn and shown to the model; you can watch how far it is, and look at every page."]
        says += [] if form.suggestions["model"] else [NO_DETECTOR]
        return self.ask(request, Question("Send a document", "Send", says), form, act, back=self.url("changelist"))

    @object_action("Look at the pages", "preview", Scope.READ, "look", is_main=True)
    def look(self, request: HttpRequest, object_id: str) -> HttpResponse:
        document: Document = self.found_document(request, object_id)
        page = document.pages.exclude(bundle=None).order_by("number").first()
        if page is None:
            return HttpResponseRedirect(self.url("change", document.pk))
        return HttpResponseRedirect(_page_path(document, page.number))

    @object_action("Download all", "download", Scope.READ, "download")
    def download(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        document = self.found_document(request, object_id)
        return send_files(services.all_files(document), f"{document.pk}.zip", str(document.job_id))

    @object_action("COCO JSON", "data_object", Scope.READ, "download-coco")
    def download_coco(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        return send_file(services.coco_file(self.found_document(request, object_id)), "application/json")

    @object_action("Retry", "refresh", Scope.WRITE, "retry")
    def retry(self, request: HttpRequest, object_id: str) -> HttpResponse:
        document = self.found_document(request, object_id)

        def act(said: dict[str, Any]) -> str:
            services.retry_document(document=document, actor=self.caller(request).name)
            return "The pages that were not read are tried again."

        question = Question("Try again?", "Retry", says=["Pages that failed or were not read are read; others stay."])
        back = self.url("change", document.pk)
        return self.ask(request, question, answers(PageForm, request), act, about=document, back=back)

    @object_action("Delete", "delete", Scope.WRITE, "remove")
    def remove(self, request: HttpRequest, object_id: str) -> HttpResponse:
        document = self.found_document(request, object_id)

        def act(said: dict[str, Any]) -> str:
            services.delete_document(document=document, actor=self.caller(request).name)
            return f"{document.title} was deleted."

        says = ["The file, the images of its pages and all that was found in it go with it."]
        question = Question(f"Delete {document.title}?", "Delete", says, is_final=True)
        form = answers(PageForm, request)
        return self.ask(request, question, form, act, about=document, back=self.url("changelist"))

    def found_document(self, request: HttpRequest, object_id: str) -> Document:
        """The document of this id."""
        document: Document = self.found(request, object_id)
        return document

    def page_view(self, request: HttpRequest, object_id: str, number: int) -> HttpResponse:
        """The viewer: a page with what was found on it."""
        document, page = self._page(request, object_id, number)
        try:
            found, why = found_on(page), ""
        except PlatformError as error:
            found, why = {"detections": [], "width_px": 1, "height_px": 1}, error.message
        names = list((document.version.signature or {}).get("classes") or []) if document.version else []
        return self.page(
            request,
            "admin/documents/page.html",
            f"Page {number} of {document.page_total}",
            about=document,
            document=document,
            number=number,
            why=why,
            image=found,
            text_px=max(10, round(found["width_px"] / 45)),
            detections=[_shown(place, one, names) for place, one in enumerate(found["detections"])],
            before=self._beside(document, number, -1),
            after=self._beside(document, number, 1),
            image_url=_page_path(document, number, "image"),
            overlay_url=_page_path(document, number, "overlay"),
            back=self.url("change", document.pk),
        )

    def image(self, request: HttpRequest, object_id: str, number: int) -> HttpResponseBase:
        """The page's image."""
        return self._sent(lambda: show_file(image_file(self._page(request, object_id, number)[1]), "image/png"))

    def overlay(self, request: HttpRequest, object_id: str, number: int) -> HttpResponseBase:
        """The page's image with boxes drawn in."""
        return self._sent(lambda: show_png(services.overlay(self._page(request, object_id, number)[1])))

    def _page(self, request: HttpRequest, object_id: str, number: int) -> tuple[Document, DocumentPage]:
        if not self.has_view_permission(request):
            raise Http404
        document = self.found_document(request, object_id)
        page = document.pages.filter(number=min(number, MAX_PAGES)).first()
        if page is None:
            raise Http404
        return document, page

    @staticmethod
    def _sent(send: Any) -> HttpResponseBase:
        try:
            response: HttpResponseBase = send()
        except PlatformError as error:
            return HttpResponse(error.message, status=409, content_type="text/plain")
        return response

    @staticmethod
    def _beside(document: Document, number: int, step: int) -> str:
        """The address of the page before or after among those that are read; empty where there is none."""
        beside = document.pages.filter(**{"number__gt" if step > 0 else "number__lt": number})
        page = beside.order_by("number" if step > 0 else "-number").first()
        return _page_path(document, page.number) if page else ""


def _page_path(document: Document, number: int, name: str = "page") -> str:
    return reverse(f"admin:documents_document_{name}", args=[document.pk, number])


def _counted(document: Document) -> str:
    if document.page_count is None:
        return document.page_range
    some = f" ({document.page_range})" if document.page_range else ""
    return f"{getattr(document, 'done_pages', 0)} of {document.page_count}{some}"


def _shown(place: int, one: dict[str, Any], names: list[Any]) -> dict[str, Any]:
    """A detection as the viewer draws it."""
    x0, y0, x1, y1 = one["box_px"]
    known = [str(name) for name in names]
    hue = known.index(one["label"]) if one["label"] in known else crc32(one["label"].encode(errors="replace"))
    corners = " ".join(f"{x},{y}" for x, y in one["polygon_px"] or ())
    points = " ".join(f"{value:.0f}" for value in one["box_pt"])
    box = {"x": x0, "y": y0, "width": round(x1 - x0, 1), "height": round(y1 - y0, 1)}
    return {"place": place, "hue": hue % HUES, "corners": corners, "points": points, "box": box, **one}
