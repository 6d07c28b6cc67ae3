"""Pages of runs: start one, watch it, cancel it, compare some."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import path
from django.utils.http import urlencode
from unfold.decorators import action

from common.errors import Invalid
from models_registry.downloads import send_file
from runtimes.trainers import TRAINERS
from tenants.models import Scope
from tenants.site.filters import FewRelated, KnownValues
from tenants.site.pages import Question, answers, column, moment_column, object_action
from tenants.site.parts import Part, numbers
from tenants.site.sites import Nav, tenant_site
from tenants.site.work import LOOK_AGAIN_S, WorkPages
from training import services
from training.admin import run_parts
from training.admin.comparing import comparison_parts
from training.admin.run_forms import RunForm, TrainingForm
from training.comparison import MOST_COMPARED, asked_ids
from training.models import HEAVY, Dataset, Purpose, Run
from training.run_requests import RunRequest

SWITCHES: dict[str, Any] = {"True": True, "False": False}
NO_DATASET = "There is no dataset yet: upload one first."


class TrainingPages(WorkPages):
    """What the pages of runs and of searches have in common."""

    asked = moment_column("Asked for", "created_at")

    def heading(self, obj: Run) -> str:
        return run_parts.short_name(obj)

    def state_of(self, obj: Run) -> str:
        return obj.state

    def has_ended(self, obj: Run) -> bool:
        return obj.job.has_ended if obj.job else bool(obj.finished_at)

    def stop(self, obj: Run, actor: str) -> None:
        services.cancel_run(run=obj, actor=actor)

    @column("Dataset", ordering="dataset_version__dataset__name")
    def dataset(self, run: Run) -> str:
        return run.dataset_version.dataset.name if run.dataset_version else ""

    @column("Metrics")
    def shown_metrics(self, run: Run) -> str:
        return numbers(run.metrics, most=2)

    def is_list(self, request: HttpRequest) -> bool:
        """Whether the list was asked for, not a page of one of its objects."""
        found = request.resolver_match
        return bool(found and found.url_name and found.url_name.endswith("_changelist"))

    def filled(self, request: HttpRequest, kind: type[TrainingForm]) -> Any:
        """The form, filled with what the address says: another trainer, or what an earlier run was asked."""
        said = {name: SWITCHES.get(str(value), value) for name, value in request.GET.items()}
        return answers(kind, request, initial=said, may_activate=self.caller(request).may(Scope.ADMIN))

    def require_activation(self, request: HttpRequest, asked: RunRequest) -> None:
        """Go on only for those who may have a version activated, if the run would."""
        if asked.activate_if is not None:
            self.caller(request).require(Scope.ADMIN)


@admin.register(Run, site=tenant_site)
class RunPages(TrainingPages):
    """The tenant's runs."""

    add = Scope.WRITE
    add_title = "Start a run"
    none_yet = "Upload a dataset, then train on it."
    nav = Nav("Training", "model_training", 30, "Runs")
    list_display = ("shown_name", "shown_state", "progress", "dataset", "model_name", "shown_metrics", "asked")
    list_filter = (
        "job__state",
        ("trainer", KnownValues),
        "purpose",
        "kind",
        ("experiment", FewRelated),
    )
    search_fields = ("name", "trainer", "model_name", "target", "created_by")
    actions = ("compare",)  # type: ignore[assignment]  # other pages have none
    actions_detail = ("again", "cancel")
    work = "run"
    when_cancelled = "What it has done so far is thrown away."

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        runs = Run.objects.select_related("job", "experiment", "dataset_version__dataset", "version__model")
        runs = runs.exclude(purpose=Purpose.SEARCH)
        if not self.is_list(request):
            return runs.defer(*(name for name in HEAVY if "__" in name))
        asked = request.GET.get("purpose__exact")
        return (runs if asked == Purpose.TRIAL else runs.exclude(purpose=Purpose.TRIAL)).defer(*HEAVY)

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view
        return [
            path("compare/", view(self.comparison), name="training_run_compare"),
            path("<str:object_id>/files/<path:file_path>", view(self.artifact), name="training_run_artifact"),
            *super().get_urls(),
        ]

    @column("Run", ordering="trainer")
    def shown_name(self, run: Run) -> str:
        return run_parts.run_name(run)

    def parts(self, request: HttpRequest, obj: Run) -> list[Part]:
        found = (
            run_parts.facts_part(obj),
            run_parts.metrics_part(obj),
            *run_parts.curves_parts(obj),
            *run_parts.evaluation_parts(obj),
            run_parts.params_part(obj),
            run_parts.decision_part(obj),
            run_parts.inputs_part(obj),
            run_parts.artifacts_part(obj),
            run_parts.origin_part(obj),
            run_parts.log_part(obj) if obj.job else None,
        )
        return [part for part in found if part]

    def applies(self, action: str, obj: Run) -> bool:
        return obj.trainer in TRAINERS if action == "again" else super().applies(action, obj)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        self.require_add(request)
        form = self.filled(request, RunForm)

        def act(said: dict[str, Any]) -> HttpResponse:
            asked = form.run_request()
            self.require_activation(request, asked)
            run = services.submit_run(request=asked, actor=self.caller(request).name)
            return HttpResponseRedirect(self.url("change", run.pk))

        says = ["A worker fits it in a sandbox, judges it on rows that were held out, and registers the version."]
        if not Dataset.objects.exists():
            says.append(NO_DATASET)
        return self.ask(request, Question("Start a run", "Start", says), form, act, back=self.url("changelist"))

    @action(description="Compare", permissions=["view"])  # type: ignore[untyped-decorator]
    def compare(self, request: HttpRequest, queryset: QuerySet[Run]) -> HttpResponse:
        """What the list offers for the chosen runs."""
        ids = queryset.values_list("pk", flat=True)[: MOST_COMPARED + 1]
        return HttpResponseRedirect(f"{self.url('compare')}?ids={','.join(map(str, ids))}")

    def comparison(self, request: HttpRequest) -> HttpResponse:
        """The chosen runs side by side."""
        if not self.has_view_permission(request):
            raise Http404
        try:
            ids = asked_ids(request.GET.get("ids", ""))
        except Invalid as error:
            self.message_user(request, error.message, level="error")
            return HttpResponseRedirect(self.url("changelist"))
        found = {run.pk: run for run in self.get_queryset(request).filter(pk__in=ids).defer(*HEAVY)}
        if len(found) < len(ids):
            raise Http404
        runs = [found[run_id] for run_id in ids]
        refresh_s = 0 if all(map(self.has_ended, runs)) else LOOK_AGAIN_S
        return self.page(
            request, "admin/detail.html", f"{len(runs)} runs", parts=comparison_parts(runs), refresh_s=refresh_s
        )

    def artifact(self, request: HttpRequest, object_id: str, file_path: str) -> Any:
        """A file that a client logged with an external run."""
        if not self.has_view_permission(request):
            raise Http404
        run: Run = self.found(request, object_id)
        logged = get_object_or_404(run.artifacts.select_related("bundle"), path=file_path)
        return send_file(logged.bundle.files.select_related("blob").get())

    @object_action("Run again", "replay", Scope.WRITE, "again")
    def again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        run: Run = self.found(request, object_id)
        return HttpResponseRedirect(f"{self.url('add')}?{urlencode(_as_asked(run))}")


def _as_asked(run: Run) -> dict[str, str]:
    """What fills the form as this run was asked for."""
    said: dict[str, Any] = {
        "trainer": run.trainer,
        "dataset": run.dataset_version.dataset.name if run.dataset_version else "",
        "target": run.target,
        "model": run.model_name,
        "experiment": run.experiment.name if run.experiment else "",
        **{f"params.{name}": value for name, value in run.params.items()},
        **{f"validation.{name}": value for name, value in run.validation.items()},
    }
    return {name: "" if value is None else str(value) for name, value in said.items()}
