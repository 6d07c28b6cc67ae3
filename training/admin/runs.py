"""Pages of runs: start one, watch it, cancel it."""

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.safestring import SafeString

from models_registry.models import RegisteredModel
from runtimes.trainers import TRAINERS
from tenants.models import JobState, Scope
from tenants.site.filters import KnownValues
from tenants.site.forms import ChoiceField, JsonField, PageForm, TextField
from tenants.site.pages import Question, ScopedPages, answers, column, moment_column, object_action, page_url
from tenants.site.parts import Facts, Part, Table, Text, Tone, bar, label, link, number, numbers, when
from tenants.site.sites import Nav, tenant_site
from training import services
from training.models import HEAVY, Dataset, Run
from training.run_requests import RunRequest

STATE_TONES: dict[str, Tone] = {
    JobState.QUEUED.value: "info",
    JobState.RUNNING.value: "warning",
    JobState.SUCCEEDED.value: "success",
    JobState.FAILED.value: "danger",
    JobState.CANCELLED.value: "",
}
LOOK_AGAIN_S = 2
MOST_SUGGESTED = 500


def state_label(run: Run) -> SafeString:
    """The run's state as a label."""
    return label(run.state.capitalize(), STATE_TONES.get(run.state, ""))


def progress(run: Run) -> SafeString | str:
    """How far an open run has come."""
    if run.job is None or run.job.has_ended:
        return ""
    return bar(run.job.progress_percent, run.job.progress_stage)


class RunForm(PageForm):
    """What a run is asked to do. Whether it can be done is judged by the training services."""

    rare: ClassVar = ("validation", "activate_if", "experiment")

    trainer = ChoiceField()
    dataset = ChoiceField(help_text="Its newest version is used.")
    target = TextField(max_length=250, help_text="The column that the model learns to predict.")
    model = TextField(max_length=100, help_text="The model that the fitted version is registered under; it may be new.")
    params = JsonField(required=False, example='{"n_estimators": 200}', help_text="Empty for the trainer's defaults.")
    validation = JsonField(
        required=False,
        example='{"kind": "holdout", "fraction": 0.2, "seed": 0}',
        help_text="How it is judged: by default on a fifth of the rows, which it is not fitted on.",
    )
    activate_if = JsonField(
        required=False,
        example='{"metric": "roc_auc", "margin": 0.01}',
        help_text="Activate the new version if it beats what serves by this metric and margin. For admins.",
    )
    experiment = TextField(required=False, max_length=250, help_text="A name under which runs are compared.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        trainers = sorted(TRAINERS.items(), key=lambda named: named[1].title)
        self._choose("trainer", [(name, trainer.title) for name, trainer in trainers])
        self._choose("dataset", [(name, name) for name in Dataset.objects.values_list("name", flat=True)])
        self.fields["model"].widget.attrs["list"] = "suggested-model"
        self.suggestions = {"model": list(RegisteredModel.objects.values_list("name", flat=True)[:MOST_SUGGESTED])}

    def _choose(self, name: str, choices: list[tuple[str, str]]) -> None:
        field = self.fields[name]
        if isinstance(field, ChoiceField):
            field.choices = choices

    def run_request(self) -> RunRequest:
        """The run as the REST API would be asked for it."""
        said = self.cleaned_data
        return RunRequest(
            trainer=said["trainer"],
            dataset=said["dataset"],
            target=said["target"],
            model=said["model"],
            params=said["params"] or {},
            validation=said["validation"] or {},
            activate_if=said["activate_if"],
            experiment=said["experiment"],
        )


@admin.register(Run, site=tenant_site)
class RunPages(ScopedPages):
    """The tenant's runs."""

    add = Scope.WRITE
    add_title = "Start a run"
    nav = Nav("Training", "model_training", 30, "Runs")
    list_display = ("name", "shown_state", "progress", "dataset", "model_name", "shown_metrics", "asked")
    asked = moment_column("Asked for", "created_at")
    list_filter = ("job__state", ("trainer", KnownValues), "kind")
    search_fields = ("trainer", "model_name", "target", "created_by")
    actions_detail = ("cancel",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        related = Run.objects.select_related("job", "experiment", "dataset_version__dataset", "version__model")
        return related.defer(*HEAVY)

    @column("Run", ordering="trainer")
    def name(self, run: Run) -> str:
        trainer = TRAINERS.get(run.trainer)
        return trainer.title if trainer else run.trainer or run.get_kind_display()

    @column("State", ordering="job__state", tones=STATE_TONES)
    def shown_state(self, run: Run) -> tuple[str, str]:
        return run.state, run.state.capitalize()

    @column("Progress")
    def progress(self, run: Run) -> SafeString | str:
        return progress(run)

    @column("Dataset", ordering="dataset_version__dataset__name")
    def dataset(self, run: Run) -> str:
        return run.dataset_version.dataset.name if run.dataset_version else ""

    @column("Metrics")
    def shown_metrics(self, run: Run) -> str:
        return numbers(run.metrics, most=2)

    def parts(self, request: HttpRequest, obj: Run) -> list[Part]:
        metrics = [(name, number(value)) for name, value in sorted(obj.metrics.items())]
        return [
            Part("Run", _facts(obj)),
            Part("Metrics", Table(("Metric", "Value"), metrics, "They are measured when it has been fitted.")),
            Part("Parameters", Facts(obj.params, empty="The trainer's defaults.")),
            *([_decision_part(obj)] if obj.activate_if else []),
            Part("Log", Text(obj.log), is_wide=True),
        ]

    def refresh_s(self, obj: Run) -> int:
        return LOOK_AGAIN_S if obj.job and not obj.job.has_ended else 0

    def applies(self, action: str, obj: Run) -> bool:
        return bool(obj.job and not obj.job.has_ended)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        self.require_add(request)
        caller = self.caller(request)
        form = answers(RunForm, request, initial={"dataset": request.GET.get("dataset", "")})

        def act(said: dict[str, Any]) -> HttpResponse:
            asked = form.run_request()
            if asked.activate_if is not None:
                caller.require(Scope.ADMIN)
            run = services.submit_run(request=asked, actor=caller.name)
            return HttpResponseRedirect(self.url("change", run.pk))

        says = ["It is queued, fitted by a worker in a sandbox, judged on rows that were held out, and registered."]
        return self.ask(request, Question("Start a run", "Start", says), form, act, back=self.url("changelist"))

    @object_action("Cancel", "cancel", Scope.WRITE, "cancel")
    def cancel(self, request: HttpRequest, object_id: str) -> HttpResponse:
        run: Run = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            services.cancel_run(run=run, actor=self.caller(request).name)
            return "The run is cancelled."

        question = Question("Cancel this run?", "Cancel the run", says=["What it has done so far is thrown away."])
        back = self.url("change", run.pk)
        return self.ask(request, question, answers(PageForm, request), act, about=run, back=back)


def _facts(run: Run) -> Facts:
    job, version = run.job, run.version
    return Facts(
        {
            "State": state_label(run),
            "Progress": progress(run),
            "Error": job.error_message if job else "",
            "Trainer": run.trainer,
            "Dataset": _dataset_link(run),
            "Target": run.target,
            "Validation": ", ".join(f"{name} {value}" for name, value in run.validation.items()),
            "Model": run.model_name,
            "Version": link(page_url(version, "change", version.pk), version) if version else "",
            "Experiment": run.experiment.name if run.experiment else "",
            "Took": f"{run.duration_s:.1f} s" if run.duration_s is not None else "",
            "Asked for by": run.created_by,
            "Created": when(run.created_at),
            "Started": when(job.started_at) if job else "",
            "Ended": when(job.finished_at) if job else "",
        }
    )


def _dataset_link(run: Run) -> SafeString | str:
    if run.dataset_version is None:
        return ""
    dataset = run.dataset_version.dataset
    return link(page_url(dataset, "change", dataset.pk), run.dataset_version)


def _decision_part(run: Run) -> Part:
    decided = run.activation_decision or {}
    criterion = run.activate_if or {}
    facts = {
        "If": f"{criterion.get('metric')} is better by {criterion.get('margin')}",
        "Decided": str(decided.get("state", "")),
        "Because": decided.get("reason"),
    }
    return Part("Activate if", Facts(facts))
