"""Pages of searches: start one, watch its trials, see which was best."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.safestring import SafeString

from tenants.models import Scope
from tenants.site.filters import FewRelated, KnownValues
from tenants.site.pages import Question, column, page_url
from tenants.site.parts import Facts, Part, Table, label, link, number
from tenants.site.plots import Plot, lines, scatter
from tenants.site.sites import Nav, tenant_site
from tenants.site.work import state_label
from training import services
from training.admin import run_parts
from training.admin.run_forms import SearchForm
from training.admin.runs import NO_DATASET, TrainingPages
from training.models import HEAVY, Dataset, Purpose, Run, Search
from training.searching import best_of

SHOWN_TRIALS = 100
MOST_PLOTS = 6
MOST_NAMES = 12
WIDE_DECADES = 2.5


@dataclass(frozen=True)
class Scored:
    """A trial that has a value. is_best: of those that ended by themselves."""

    number: int
    params: dict[str, Any]
    value: float
    is_best: bool
    is_pruned: bool

    @property
    def words(self) -> str:
        """What its dot says."""
        chosen = ", ".join(f"{name} {number(value, 4)}" for name, value in self.params.items())
        return f"trial {self.number}: {number(self.value, 4)} ({chosen})" + (", given up" if self.is_pruned else "")


@admin.register(Search, site=tenant_site)
class SearchPages(TrainingPages):
    """The tenant's searches."""

    add = Scope.WRITE
    add_title = "Start a search"
    none_yet = "A search tries a trainer's parameters on a dataset and registers the best."
    nav = Nav("Training", "travel_explore", 31, "Searches")
    list_display = ("shown_name", "shown_state", "progress", "dataset", "model_name", "best_value", "asked")
    list_filter = ("job__state", ("trainer", KnownValues), ("experiment", FewRelated))
    search_fields = ("trainer", "model_name", "target", "created_by")
    actions_detail = ("cancel",)
    work = "search"
    when_cancelled = "All its trials end, and no version is made."

    def get_queryset(self, request: HttpRequest) -> QuerySet[Search]:
        searches = Search.objects.select_related("job", "experiment", "dataset_version__dataset", "version__model")
        heavy = HEAVY if self.is_list(request) else tuple(name for name in HEAVY if "__" in name)
        return searches.defer(*heavy)

    @column("Search", ordering="trainer")
    def shown_name(self, run: Run) -> str:
        return run_parts.run_name(run)

    @column("Best")
    def best_value(self, run: Run) -> str:
        metric = (run.search or {}).get("metric", "")
        return f"{metric} {number(run.metrics[metric], 4)}" if metric in run.metrics else ""

    def parts(self, request: HttpRequest, obj: Search) -> list[Part]:
        search = obj.search or {}
        trials = _trials(obj)
        best = best_of(trials, search)
        scored = [one for trial in trials if (one := _scored(trial, best))]
        found = (
            run_parts.facts_part(obj),
            _plan_part(search, trials, best),
            _progress_part(scored, search),
            *_space_parts(scored, search),
            _trials_part(trials, search, best),
            run_parts.decision_part(obj),
            *run_parts.evaluation_parts(obj),
            run_parts.log_part(obj),
        )
        return [part for part in found if part]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        self.require_add(request)
        form = self.filled(request, SearchForm)

        def act(said: dict[str, Any]) -> HttpResponse:
            asked = form.search_request()
            self.require_activation(request, asked.run)
            run = services.submit_search(request=asked, actor=self.caller(request).name)
            return HttpResponseRedirect(self.url("change", run.pk))

        says = ["It tries parameters in runs of their own, and registers a version made with the best ones."]
        if not Dataset.objects.exists():
            says.append(NO_DATASET)
        question = Question("Start a search", "Start", says)
        return self.ask(request, question, form, act, back=self.url("changelist"))


def _trials(search: Search) -> list[Run]:
    trials = Run.objects.filter(parent=search.pk, purpose=Purpose.TRIAL).select_related("job").defer(*HEAVY)
    return list(trials.order_by("created_at", "pk"))


def _scored(trial: Run, best: Run | None) -> Scored | None:
    told = trial.search or {}
    if told.get("value") is None:
        return None
    is_best = best is not None and trial.pk == best.pk
    return Scored(told["number"], told.get("params", {}), told["value"], is_best, bool(told.get("pruned")))


def _plan_part(search: dict[str, Any], trials: Sequence[Run], best: Run | None) -> Part:
    ended = [trial for trial in trials if trial.job and trial.job.has_ended]
    pruned = sum(1 for trial in ended if (trial.search or {}).get("pruned"))
    failed = sum(1 for trial in ended if trial.state == "failed")
    sense = "the lowest" if search.get("direction") == "min" else "the highest"
    facts = {
        "Trials": f"{len(ended)} of {search.get('trials')}",
        "Given up": pruned or "",
        "Failed": failed or "",
        "Method": search.get("method"),
        "Looks for": f"{sense} {search.get('metric')}",
        "Best": f"{number((best.search or {}).get('value'), 4)} (trial {(best.search or {}).get('number')})"
        if best
        else "",
        **{
            f"Best {name}": str(value)
            for name, value in ((best.search or {}).get("params", {}) if best else {}).items()
        },
        **{f"Tries {name}": _space_words(told) for name, told in search.get("space", {}).items()},
    }
    return Part("Search", Facts(facts))


def _space_words(told: Any) -> str:
    if isinstance(told, dict):
        return f"{told.get('low')} to {told.get('high')}" + (", by orders of magnitude" if told.get("log") else "")
    return ", ".join(str(value) for value in told)


def _progress_part(scored: Sequence[Scored], search: dict[str, Any]) -> Part | None:
    """The best value that was known after each trial."""
    metric = str(search.get("metric", ""))
    better = min if search.get("direction") == "min" else max
    values = [(one.number, one.value) for one in scored if not one.is_pruned]
    if len(values) < 2:
        return None
    so_far = [(float(at), better(value for _, value in values[: place + 1])) for place, (at, _) in enumerate(values)]
    each = [(float(at), value) for at, value in values]
    plot = lines({"best so far": so_far, "each trial": each}, title=f"{metric} by trial", x="trial", y=metric)
    return Part("Progress", plot)


def _space_parts(scored: Sequence[Scored], search: dict[str, Any]) -> list[Part]:
    """A scatter for each parameter that was searched."""
    metric = str(search.get("metric", ""))
    parts = []
    for name, told in list(search.get("space", {}).items())[:MOST_PLOTS]:
        plot = _scatter(name, told, metric, [one for one in scored if name in one.params])
        parts.append(Part(name, plot, notes=["The best trial stands out. Point at a dot to see its parameters."]))
    return parts


def _scatter(name: str, told: Any, metric: str, scored: Sequence[Scored]) -> Plot:
    """The metric over a parameter; values that are no numbers stand side by side, ranges by orders of magnitude so."""
    marked = [place for place, one in enumerate(scored) if one.is_best]
    values = [one.params[name] for one in scored]
    is_log = isinstance(told, dict) and bool(told.get("log"))
    names: dict[float, str] = {}
    if is_log:
        across = [log10(value) for value in values]
        names = _log_ticks(min(across, default=0.0), max(across, default=0.0))
    elif all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        across = [float(value) for value in values]
    else:
        kinds = list(dict.fromkeys(str(value) for value in values))
        across = [float(kinds.index(str(value))) for value in values]
        names = {float(place): kind for place, kind in enumerate(kinds[:MOST_NAMES])}
    points = [(at, one.value, one.words) for at, one in zip(across, scored, strict=True)]
    return scatter(
        points, title=f"{metric} by {name}", x=name, y=metric, marked=marked, names=names, empty="No trial has ended."
    )


def _log_ticks(low: float, high: float) -> dict[float, str]:
    """Round values between two powers of ten, by their logarithms."""
    factors = (1, 2, 5) if high - low < WIDE_DECADES else (1,)
    powers = range(floor(low), ceil(high) + 1)
    return {log10(factor) + power: f"{factor * 10.0**power:g}" for power in powers for factor in factors}


def _trials_part(trials: Sequence[Run], search: dict[str, Any], best: Run | None) -> Part:
    names = list(search.get("space", {}))
    rows = [
        (
            link(page_url(Run, "change", trial.pk), f"Trial {(trial.search or {}).get('number')}"),
            _standing(trial, best),
            number(value, 4) if (value := (trial.search or {}).get("value")) is not None else "",
            *(number((trial.search or {}).get("params", {}).get(name), 4) for name in names),
            f"{trial.duration_s:.1f} s" if trial.duration_s is not None else "",
            trial.job.error_message if trial.job else "",
        )
        for trial in _ranked(trials, search)[:SHOWN_TRIALS]
    ]
    headers = ("Trial", "", str(search.get("metric", "")), *names, "Took", "Error")
    notes = [f"The best {SHOWN_TRIALS} of {len(trials)}."] if len(trials) > SHOWN_TRIALS else []
    return Part("Trials", Table(headers, rows, "Its trials are being asked for."), notes=notes, is_wide=True)


def _ranked(trials: Sequence[Run], search: dict[str, Any]) -> list[Run]:
    """The best first, then those that were given up, then those without a value."""
    sign = 1 if search.get("direction") == "min" else -1

    def rank(trial: Run) -> tuple[bool, bool, float]:
        value = (trial.search or {}).get("value")
        return value is None, bool((trial.search or {}).get("pruned")), sign * (value or 0.0)

    return sorted(trials, key=rank)


def _standing(trial: Run, best: Run | None) -> SafeString:
    if best is not None and trial.pk == best.pk:
        return label("Best", "success")
    if (trial.search or {}).get("pruned"):
        return label("Given up", "warning")
    return state_label(trial.state)
