"""Pages of batch jobs: ask for one, watch it, fetch its result."""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect

from common.errors import Invalid
from inference.batch import services
from inference.batch.work import KIND
from inference.models import BatchJob
from inference.routing import route
from models_registry.downloads import send_file
from models_registry.models import RegisteredModel
from tenants.models import Scope
from tenants.site.forms import PageForm, SwitchField, TextField
from tenants.site.pages import Question, answers, column, moment_column, object_action, page_url
from tenants.site.parts import Facts, Part, link, size, when
from tenants.site.sites import Nav, tenant_site
from tenants.site.work import WorkPages, state_label

MOST_SUGGESTED = 500


class BatchForm(PageForm):
    """Which model is to predict which table."""

    rare: ClassVar = ("probabilities",)

    model = TextField(max_length=100, help_text="The version that serves when the job is asked for predicts all rows.")
    file = forms.FileField(
        required=False, widget=forms.FileInput, help_text="A table as CSV with a header, JSON Lines or Parquet."
    )
    dataset = TextField(required=False, max_length=100, help_text="Instead of a file: a dataset's name.")
    probabilities = SwitchField(required=False, help_text="Add a column with the probability of each class.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["model"].widget.attrs["list"] = "suggested-model"
        self.suggestions = {"model": list(RegisteredModel.objects.values_list("name", flat=True)[:MOST_SUGGESTED])}


tenant_site.about_jobs(KIND, BatchJob)


@admin.register(BatchJob, site=tenant_site)
class BatchJobPages(WorkPages):
    """The tenant's batch jobs."""

    add = Scope.WRITE
    add_title = "Predict a table"
    none_yet = "A table goes in and comes out with predictions; a version has to serve first."
    nav = Nav("Models", "table_view", 25, "Batch jobs")
    list_display = ("file_name", "model_name", "shown_state", "progress", "rows", "faults", "asked")
    asked = moment_column("Asked for", "created_at")
    list_filter = ("job__state", "format")
    search_fields = ("file_name", "model_name", "dataset", "created_by")
    actions_detail = ("download", "cancel")
    work = "batch job"
    when_cancelled = "What it has predicted is thrown away."

    def get_queryset(self, request: HttpRequest) -> QuerySet[BatchJob]:
        return BatchJob.objects.select_related("job", "version", "result").defer("parts")

    @column("Rows", ordering="row_count")
    def rows(self, batch: BatchJob) -> str:
        return f"{batch.row_count:,}"

    @column("With an error", ordering="fault_count")
    def faults(self, batch: BatchJob) -> str:
        return f"{batch.fault_count:,}" if batch.fault_count else ""

    def parts(self, request: HttpRequest, obj: BatchJob) -> list[Part]:
        job, version = obj.job, obj.version
        named = f"{obj.model_name} v{obj.version_number}"
        facts = {
            "State": state_label(job.state),
            "Progress": self.progress(obj),
            "Error": job.error_message,
            "Model": link(page_url(version, "change", version.pk), named) if version else named,
            "Table": obj.dataset or obj.file_name,
            "Format": obj.format,
            "Probabilities": "yes" if obj.probabilities else "",
            "Rows predicted": f"{obj.row_count:,}",
            "Rows with an error": f"{obj.fault_count:,}",
            "Result": size(obj.result.size_bytes) if obj.result else "",
            "Asked for by": obj.created_by,
            "Created": when(obj.created_at),
            "Started": when(job.started_at),
            "Ended": when(job.finished_at),
        }
        return [Part("Batch job", Facts(facts))]

    def applies(self, action: str, obj: BatchJob) -> bool:
        return obj.result is not None if action == "download" else super().applies(action, obj)

    def stop(self, obj: BatchJob, actor: str) -> None:
        services.cancel_batch(batch=obj, actor=actor)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        self.require_add(request)
        caller = self.caller(request)

        def act(said: dict[str, Any]) -> HttpResponse:
            found = route(said["model"], {})
            table = _table(said)
            batch = services.submit_batch(
                route=found, table=table, probabilities=said["probabilities"], actor=caller.name
            )
            return HttpResponseRedirect(self.url("change", batch.pk))

        says = ["Each row gets its prediction in further columns, or an error; the result is a file of the same kind."]
        form = answers(BatchForm, request, initial={"model": request.GET.get("model", "")})
        return self.ask(request, Question("Predict a table", "Start", says), form, act, back=self.url("changelist"))

    @object_action("Download the result", "download", Scope.READ, "result", is_main=True)
    def download(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        batch: BatchJob = self.found(request, object_id)
        return send_file(services.result_file(batch))


def _table(said: dict[str, Any]) -> Any:
    """The table that was sent or named: one of the two."""
    file, dataset = said["file"], said["dataset"]
    if bool(file) == bool(dataset):
        raise Invalid("Send a file, or name a dataset.", fields={"file": "or a dataset, one of the two"})
    if dataset:
        return services.table_of_dataset(dataset)
    return services.store_table(file, size_bytes=file.size, file_name=file.name)
