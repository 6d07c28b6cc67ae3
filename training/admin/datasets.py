"""Pages of datasets: upload, look, start a run, delete."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, F, Func, IntegerField, Max, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from common.errors import PlatformError
from runtimes.profiles import ColumnProfile
from tenants.models import Scope
from tenants.site.forms import PageForm, TextField
from tenants.site.pages import Question, ScopedPages, answers, column, moment_column, object_action, page_url
from tenants.site.parts import Facts, Part, Table, Tone, code, label, number, size, when
from tenants.site.sites import Nav, tenant_site
from tenants.site.work import LOOK_AGAIN_S
from training import services
from training.admin.plots import bars
from training.models import Dataset, DatasetState, DatasetVersion, Run

PREVIEWED_ROWS = 10
STATE_TONES: dict[str, Tone] = {
    DatasetState.PROFILING.value: "warning",
    DatasetState.READY.value: "success",
    DatasetState.REJECTED.value: "danger",
}
SHOWN_VERSIONS = 50
HASH_CHARS = 12
MOST_SUGGESTED = 500
PROFILED_COLUMNS = 200
TOP_SHOWN, TOP_CHARS = 3, 40


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
    none_yet = "Upload a table, then train on it."
    nav = Nav("Training", "table_chart", 32, "Datasets")
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
        newest_first = (
            obj.versions.select_related("bundle", "dataset").defer("columns", "profile").order_by("-created_at")
        )
        column_count = Func(F("columns"), function="jsonb_array_length", output_field=IntegerField())
        versions = list(newest_first.annotate(column_count=column_count)[:SHOWN_VERSIONS])
        rows = [
            (
                code(one.digest[:HASH_CHARS]),
                label(one.get_state_display(), STATE_TONES[one.state]),
                one.row_count,
                getattr(one, "column_count", 0),
                size(one.size_bytes),
                one.file_name,
                when(one.created_at),
                one.created_by,
            )
            for one in versions
        ]
        headers = ("Digest", "", "Rows", "Columns", "Size", "File", "Uploaded", "By")
        table = Part("Versions", Table(headers, rows, "There are no versions."), is_wide=True)
        return [*([_columns_part(versions[0]), _preview_part(versions[0])] if versions else []), table]

    def refresh_s(self, obj: Dataset) -> int:
        is_read = obj.versions.filter(profile=None, rejection_reason="").exists()
        return LOOK_AGAIN_S if is_read else 0

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
    """The profile of the columns, or their names until it is made."""
    if version.profile is None:
        notes = [version.rejection_reason] if version.rejection_reason else ["Its profile is being made."]
        return Part("Columns", Facts({"Names": ", ".join(version.columns)}), notes=notes, is_wide=True)
    profile = services.profile_of(version)
    rows = [
        (column.name, column.kind, column.missing, column.distinct, *_spread(column))
        for column in profile.columns[:PROFILED_COLUMNS]
    ]
    return Part("Columns", Table(("Column", "Type", "Missing", "Distinct", "Values", ""), rows), is_wide=True)


def _spread(column: ColumnProfile) -> tuple[str, SafeString | str]:
    """What a column's values are like, in words and as a plot."""
    if column.histogram and column.quantiles:
        low, high = column.quantiles[0].value, column.quantiles[-1].value
        words = f"{number(low, 4)} to {number(high, 4)}, mean {number(column.mean or 0.0, 4)}"
        return words, bars(column.histogram.counts, f"Histogram of {column.name}: {words}")
    if column.kind == "date":
        return f"{column.earliest} to {column.latest}", ""
    words = ", ".join(f"{one.value[:TOP_CHARS]} ({one.count})" for one in column.top[:TOP_SHOWN])
    return words, bars([one.count for one in column.top], f"Frequent values of {column.name}")
