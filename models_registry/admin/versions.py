"""Pages of model versions: upload, look, download, activate, delete."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from models_registry import services
from models_registry.admin import parts
from models_registry.admin.comparison import comparison_part, in_sentences, serving_version
from models_registry.admin.files import browser_parts
from models_registry.admin.upload import UploadForm
from models_registry.metadata import parse_metadata
from models_registry.models import ModelVersion, RegisteredModel
from models_registry.usage import dependents_of
from tenants.models import Scope
from tenants.site.filters import FewRelated, KnownValues
from tenants.site.forms import JsonField, LongTextField, PageForm, ReasonForm
from tenants.site.pages import Question, ScopedPages, answers, column, moment_column, object_action, page_url
from tenants.site.parts import Facts, Part, label, link, numbers, size, tags, when
from tenants.site.sites import Nav, tenant_site
from tenants.site.work import LOOK_AGAIN_S


class VersionForm(PageForm):
    """What may still be said of a version."""

    description = LongTextField(required=False)
    metrics_reported = JsonField(required=False, label="Metrics", help_text="As reported: numbers by name.")
    tags = JsonField(required=False, help_text="Texts by name.")


@admin.register(ModelVersion, site=tenant_site)
class VersionPages(ScopedPages):
    """The versions of all models."""

    add = Scope.WRITE
    add_title = "Upload a version"
    none_yet = (
        "Upload a file that a library has saved: scikit-learn, torch, ONNX, XGBoost, LightGBM, or an MLflow folder."
    )
    nav = Nav("Registry", "layers", 11, "Versions")
    list_display = ("version", "shown_state", "serves", "format", "metrics", "size", "uploaded")
    uploaded = moment_column("Uploaded", "created_at")
    list_filter = ("state", ("format", KnownValues), ("model", FewRelated))
    search_fields = ("model__name", "description", "created_by")
    actions_row = ("activate", "download", "remove")
    actions_detail: tuple[str, ...] = ("activate", "download", "files", "edit", "remove")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelVersion]:
        return ModelVersion.objects.with_standing().light()

    @column("Version", ordering="model__name")
    def version(self, version: ModelVersion) -> str:
        return str(version)

    @column("State", ordering="state", tones=parts.STATE_TONES)
    def shown_state(self, version: ModelVersion) -> tuple[str, str]:
        return version.state, version.get_state_display()

    @column("Serves", tones={"serves": "success"})
    def serves(self, version: ModelVersion) -> str:
        return "serves" if getattr(version, "is_active", False) else ""

    @column("Metrics")
    def metrics(self, version: ModelVersion) -> str:
        return numbers(version.metrics, most=2)

    @column("Size", ordering="bundle__size_bytes")
    def size(self, version: ModelVersion) -> str:
        return size(version.bundle.size_bytes)

    def parts(self, request: HttpRequest, obj: ModelVersion) -> list[Part]:
        compiled = parts.compilation_part(obj)
        return [
            Part("Version", _facts(obj)),
            parts.inspection_part(obj),
            *([compiled] if compiled else []),
            parts.signature_part(obj),
            parts.metrics_part(obj),
            parts.files_part(obj, self.url("files", obj.pk)),
            parts.mapping_part("Parameters", obj.params, "No parameters were given."),
        ]

    def refresh_s(self, obj: ModelVersion) -> int:
        return 0 if obj.is_inspected else LOOK_AGAIN_S

    def applies(self, action: str, obj: ModelVersion) -> bool:
        return action != "activate" or (obj.is_ready and not getattr(obj, "is_active", False))

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        self.require_add(request)
        form = answers(UploadForm, request, initial={"model": request.GET.get("model", "")})

        def act(said: dict[str, Any]) -> HttpResponse:
            version = services.register_version(
                model_name=said["model"],
                files=form.incoming(),
                metadata=parse_metadata(form.metadata()),
                actor=self.caller(request).name,
                create=True,
            )
            return HttpResponseRedirect(self.url("change", version.pk))

        says = ["It is inspected in a sandbox before it may serve, so nobody has to trust the file."]
        return self.ask(request, Question("Upload a version", "Upload", says), form, act, back=self.url("changelist"))

    @object_action("Activate", "play_circle", Scope.ADMIN, "activate", is_main=True)
    def activate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        version: ModelVersion = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            services.activate(version=version, actor=self.caller(request).name, **said)
            return f"{version} serves now."

        serving = serving_version(version)
        compared = comparison_part(version, serving)
        question = Question(f"Activate {version}?", "Activate", in_sentences(version, serving))
        return self._ask(request, version, question, answers(ReasonForm, request), act, compared)

    @object_action("Files", "folder_open", Scope.READ, "files")
    def files(self, request: HttpRequest, object_id: str) -> HttpResponse:
        version: ModelVersion = self.found(request, object_id)
        shown = browser_parts(version, request.GET.get("path", ""), self.url("files", version.pk))
        return self.page(request, "admin/detail.html", f"Files of {version}", about=version, parts=shown)

    @object_action("Download", "download", Scope.READ, "download")
    def download(self, request: HttpRequest, object_id: str) -> HttpResponse:
        version: ModelVersion = self.found(request, object_id)
        return HttpResponseRedirect(reverse("version-artifact", args=[version.model.name, version.number]))

    @object_action("Edit", "edit", Scope.WRITE, "edit")
    def edit(self, request: HttpRequest, object_id: str) -> HttpResponse:
        version: ModelVersion = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            said = said | {"metrics_reported": said["metrics_reported"] or {}, "tags": said["tags"] or {}}
            parse_metadata({"metrics": said["metrics_reported"], "tags": said["tags"]})
            services.change_version(version=version, actor=self.caller(request).name, **said)
            return f"{version} was changed."

        initial = {name: getattr(version, name) for name in VersionForm.base_fields}
        form = answers(VersionForm, request, initial=initial)
        return self._ask(request, version, Question(f"Edit {version}", "Save"), form, act)

    @object_action("Delete", "delete", Scope.ADMIN, "remove")
    def remove(self, request: HttpRequest, object_id: str) -> HttpResponse:
        version: ModelVersion = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            named = str(version)
            services.delete_version(version=version, actor=self.caller(request).name)
            return f"{named} was deleted."

        says = ["Its files go with it, unless another version has the same ones. Its number is not used again."]
        hindered = dependents_of(version)
        question = Question(f"Delete {version}?", "Delete", says, is_final=True, hindered=hindered)
        form = answers(PageForm, request)
        return self.ask(request, question, form, act, about=version, back=self.url("changelist"))

    def _ask(
        self,
        request: HttpRequest,
        version: ModelVersion,
        question: Question,
        form: Any,
        act: Any,
        compared: Part | None = None,
    ) -> HttpResponse:
        back, beside = self.url("change", version.pk), [compared] if compared else []
        return self.ask(request, question, form, act, about=version, back=back, parts=beside)


def _facts(version: ModelVersion) -> Facts:
    return Facts(
        {
            "Model": link(page_url(RegisteredModel, "change", version.model_id), version.model.name),
            "Number": version.number,
            "State": parts.state_label(version),
            "Serves": label("serves", "success") if getattr(version, "is_active", False) else "",
            "Format": version.format,
            "Task": version.task,
            "Size": size(version.bundle.size_bytes),
            "Aliases": ", ".join(alias.name for alias in version.aliases.all()),
            "Description": version.description,
            "Tags": tags(version.tags),
            "From run": version.source_run,
            "Uploaded": when(version.created_at),
            "By": version.created_by,
        }
    )
