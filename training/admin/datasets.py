"""Pages of datasets: upload, look, start a run, delete."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, F, Func, IntegerField, Max, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.http import urlencode

from common.errors import PlatformError
from tenants.models import Scope
from tenants.site.forms import PageForm, TextField
from tenants.site.pages import Question, ScopedPages, answers, column, moment_column, object_action, page_url
from tenants.site.parts import Facts, Part, Table, code, size, when
from tenants.site.sites import Nav, tenant_site
from training import services
from training.models import Dataset, DatasetVersion, Run

PREVIEWED_ROWS = 10
SHOWN_VERSIONS = 50
HASH_CHARS = 12
MOST_SUGGESTED = 500


class DatasetForm(PageForm):
    """A table to upload."""

    name = TextField(
        max_length=100, help_text="The dataset's name. A further file under the same name is a further version."
    )
    file = forms.FileField(
        widget=forms.FileInput, help_text="CSV with a header line, JSON Lines with an object a line, or Parquet."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].widget.attrs["list"] = "suggested-name"
        self.suggestions = {"name": list(Dataset.objects.values_list("name", flat=True)[:MOST_SUGGESTED])}


@admin.register(Dataset, site=tenant_site)
class DatasetPages(ScopedPages):
    """The tenant's tables."""

    add = Scope.WRITE
    add_title = "Upload a dataset"
    nav = Nav("Training", "table_chart", 31, "Datasets")
    list_display = ("name", "versions", "newest", "made")
    newest = moment_column("Newest version", "newest_at")
    made = moment_column("Made", "created_at")
    search_fields = ("name",)
    actions_detail = ("upload", "start_run", "remove")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return Dataset.objects.annotate(version_count=Count("versions"), newest_at=Max("versions__created_at"))

    @column("Versions", ordering="version_count")
    def versions(self, dataset: Dataset) -> int:
        return int(getattr(dataset, "version_count", 0))

    def parts(self, request: HttpRequest, obj: Dataset) -> list[Part]:
        newest_first = obj.versions.select_related("bundle", "dataset").defer("columns").order_by("-created_at")
        column_count = Func(F("columns"), function="jsonb_array_length", output_field=IntegerField())
        versions = list(newest_first.annotate(column_count=column_count)[:SHOWN_VERSIONS])
        rows = [
            (
                code(one.digest[:HASH_CHARS]),
                one.row_count,
                getattr(one, "column_count", 0),
                size(one.size_bytes),
                one.file_name,
                when(one.created_at),
                one.created_by,
            )
            for one in versions
        ]
        headers = ("Digest", "Rows", "Columns", "Size", "File", "Uploaded", "By")
        table = Part("Versions", Table(headers, rows, "There are no versions."), is_wide=True)
        return [table, *([_preview_part(versions[0]), _columns_part(versions[0])] if versions else [])]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        self.require_add(request)

        def act(said: dict[str, Any]) -> HttpResponse:
            file = said["file"]
            version, is_new = services.upload_dataset(
                name=said["name"],
                file=file,
                size_bytes=file.size,
                file_name=file.name,
                actor=self.caller(request).name,
            )
            done = f"{version} was uploaded: {version.row_count} rows." if is_new else f"{version} was there already."
            self.message_user(request, done)
            return HttpResponseRedirect(self.url("change", version.dataset_id))

        form = answers(DatasetForm, request, initial={"name": request.GET.get("name", "")})
        question = Question("Upload a dataset", "Upload", says=["The file is checked while it is uploaded."])
        return self.ask(request, question, form, act, back=self.url("changelist"))

    @object_action("Upload a version", "upload", Scope.WRITE, "upload")
    def upload(self, request: HttpRequest, object_id: str) -> HttpResponse:
        query = urlencode({"name": self.found(request, object_id).name})
        return HttpResponseRedirect(f"{self.url('add')}?{query}")

    @object_action("Train on it", "model_training", Scope.WRITE, "train", is_main=True)
    def start_run(self, request: HttpRequest, object_id: str) -> HttpResponse:
        query = urlencode({"dataset": self.found(request, object_id).name})
        return HttpResponseRedirect(f"{page_url(Run, 'add')}?{query}")

    @object_action("Delete", "delete", Scope.WRITE, "remove")
    def remove(self, request: HttpRequest, object_id: str) -> HttpResponse:
        dataset: Dataset = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            services.delete_dataset(dataset=dataset, actor=self.caller(request).name)
            return f"{dataset.name} was deleted."

        says = [f"All its {self.versions(dataset)} versions go with it. A dataset that a run has used is not deleted."]
        question = Question(f"Delete the dataset {dataset.name}?", "Delete", says, is_final=True)
        form = answers(PageForm, request)
        return self.ask(request, question, form, act, about=dataset, back=self.url("changelist"))


def _preview_part(version: DatasetVersion) -> Part:
    try:
        preview = services.preview(version, PREVIEWED_ROWS)
    except PlatformError as error:
        return Part("First rows", Table((), (), error.message), is_wide=True)
    title = (
        f"First rows, without {preview.columns_left_out} further columns" if preview.columns_left_out else "First rows"
    )
    return Part(title, Table(preview.columns, preview.rows, "It has no rows."), is_wide=True)


def _columns_part(version: DatasetVersion) -> Part:
    return Part("Columns", Facts({"Names": ", ".join(version.columns)}), is_wide=True)
