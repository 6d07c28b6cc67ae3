"""The forms by which runs and searches are started; their parameters' fields come from the trainer's schema."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from models_registry.models import RegisteredModel
from runtimes.trainers import TRAINERS, Trainer
from tenants.site.forms import ChoiceField, NumberField, PageForm, SwitchField, TextField
from training.admin.trainer_fields import VALUE_CHARS, RealField, param_fields, params_of, written_dimension
from training.models import Dataset, DatasetVersion, Experiment
from training.run_requests import LOWER_IS_BETTER, METRICS, RunRequest
from training.search_requests import DEFAULT_TRIALS, MOST_TRIALS, SearchRequest
from training.tables import IMAGES

DEFAULT_TRAINER = "random_forest_classifier"
MOST_SUGGESTED = 500
VALIDATIONS = (
    ("holdout", "On rows that are held out"),
    ("kfold", "By cross-validation"),
    ("none", "Not at all"),
)
METHODS = (("bayes", "Bayesian"), ("random", "Random"), ("grid", "Grid"))
IN_TRIALS = "A value for all trials, values such as 50, 100, or a range such as 2..12 or 0.001..0.3 log."


class TrainingForm(PageForm):
    """What runs and searches have in common. Whether it can be done is judged by the training services.

    Choosing another trainer or dataset opens the form anew (`data-reload`), for its other fields depend on them.
    """

    rare: ClassVar[Sequence[str]] = (
        "validation.kind",
        "validation.fraction",
        "validation.folds",
        "validation.seed",
        "activate_if.metric",
        "activate_if.margin",
        "experiment",
    )

    def __init__(self, *args: Any, may_activate: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        datasets = list(Dataset.objects.values_list("name", flat=True))
        self.initial.setdefault("dataset", datasets[0] if datasets else "")
        self.newest = self._newest_version()
        offered = _trainers(self.newest)
        self.trainer = self._trainer([name for name, _ in offered])
        self.fields["trainer"] = ChoiceField(choices=offered)
        self.initial["trainer"] = self.trainer.name
        named = [(name, name) for name in datasets]
        self.fields["dataset"] = ChoiceField(choices=named, help_text="Its newest version is used.")
        for name in ("trainer", "dataset"):
            self.fields[name].widget.attrs["data-reload"] = "yes"
        self.fields["target"] = TextField(max_length=250, help_text="The column that the model learns to predict.")
        told = "The model that the fitted version is registered under; it may be new."
        self.fields["model"] = TextField(max_length=100, help_text=told)
        self.add_params()
        self._add_validation()
        if may_activate:
            self._add_activation()
        self.fields["experiment"] = TextField(
            required=False, max_length=250, help_text="A name under which runs are compared."
        )
        self._suggest()

    def add_params(self) -> None:
        """Add the fields of the trainer's parameters."""

    def _trainer(self, offered: Sequence[str]) -> type[Trainer]:
        said = self.data.get("trainer") if self.is_bound else self.initial.get("trainer")
        chosen = next((name for name in (str(said), DEFAULT_TRAINER, *offered) if name in offered), DEFAULT_TRAINER)
        return TRAINERS[chosen]

    def _add_validation(self) -> None:
        self.fields["validation.kind"] = ChoiceField(label="Judged", choices=VALIDATIONS, required=False)
        self.fields["validation.fraction"] = RealField(
            label="Part of the rows held out", required=False, initial=0.2, help_text="Where rows are held out."
        )
        self.fields["validation.folds"] = NumberField(
            label="Folds", required=False, initial=5, help_text="Of a cross-validation."
        )
        self.fields["validation.seed"] = NumberField(
            label="Seed of the split", required=False, initial=0, help_text="The same seed splits the same way."
        )

    def _add_activation(self) -> None:
        metrics = [("", "Never"), *((name, f"Its {name} is better") for name in METRICS[self.trainer.task])]
        self.fields["activate_if.metric"] = ChoiceField(
            label="Activate the new version if", choices=metrics, required=False, help_text="Than what serves then."
        )
        self.fields["activate_if.margin"] = RealField(label="By at least", required=False, initial=0)

    def _newest_version(self) -> DatasetVersion | None:
        dataset = self.data.get("dataset") if self.is_bound else self.initial.get("dataset")
        versions = DatasetVersion.objects.filter(dataset__name=dataset or "").order_by("-created_at", "-pk")
        return versions.only("format", "columns").first()

    def _suggest(self) -> None:
        self.suggestions = {
            "target": self.newest.columns[:MOST_SUGGESTED] if self.newest else [],
            "model": list(RegisteredModel.objects.values_list("name", flat=True)[:MOST_SUGGESTED]),
            "experiment": list(Experiment.objects.values_list("name", flat=True)[:MOST_SUGGESTED]),
        }
        for name in self.suggestions:
            self.fields[name].widget.attrs["list"] = f"suggested-{name}"

    def asked(self, params: Mapping[str, Any]) -> RunRequest:
        """The run as the REST API would be asked for it."""
        said = self.cleaned_data
        metric = said.get("activate_if.metric")
        return RunRequest(
            trainer=said["trainer"],
            dataset=said["dataset"],
            target=said["target"],
            model=said["model"],
            params=params,
            validation=self._validation(),
            activate_if={"metric": metric, "margin": said.get("activate_if.margin") or 0.0} if metric else None,
            experiment=said["experiment"],
        )

    def _validation(self) -> dict[str, Any]:
        names = {"holdout": ("kind", "fraction", "seed"), "kfold": ("kind", "folds", "seed"), "none": ("kind",)}
        kind = self.cleaned_data.get("validation.kind") or "holdout"
        said = {name: self.cleaned_data.get(f"validation.{name}") for name in names[kind]}
        return {name: value for name, value in (said | {"kind": kind}).items() if value not in (None, "")}


class RunForm(TrainingForm):
    """What a run is asked to do."""

    def add_params(self) -> None:
        for name, field in param_fields(self.trainer):
            self.fields[f"params.{name}"] = field

    def run_request(self) -> RunRequest:
        """The run as the REST API would be asked for it."""
        return self.asked(params_of(self.trainer, self.cleaned_data, "params."))


class SearchForm(TrainingForm):
    """What a search is asked to do."""

    rare: ClassVar[Sequence[str]] = (*TrainingForm.rare, "seed", "prune", "parallel")

    def add_params(self) -> None:
        for number, (name, field) in enumerate(param_fields(self.trainer)):
            words = f"{field.help_text} {IN_TRIALS}" if number == 0 else field.help_text
            self.fields[f"space.{name}"] = TextField(
                label=name, required=False, max_length=VALUE_CHARS, help_text=words
            )
            initial = "" if field.initial is None else str(field.initial)
            self.fields[f"space.{name}"].widget.attrs["placeholder"] = initial
        metrics = [(name, name) for name in _best_first(METRICS[self.trainer.task])]
        self.fields["metric"] = ChoiceField(choices=metrics, help_text="By which trials are compared.")
        self.fields["method"] = ChoiceField(choices=METHODS)
        self.fields["trials"] = NumberField(
            required=False,
            min_value=1,
            max_value=MOST_TRIALS,
            help_text=f"Where it is empty, {DEFAULT_TRIALS}, or all points of a grid.",
        )
        self.fields["seed"] = NumberField(required=False, min_value=0, initial=0, help_text="Of the search's choices.")
        self.fields["prune"] = SwitchField(
            required=False, initial=True, label="Give bad trials up", help_text="Those worse than most were."
        )
        self.fields["parallel"] = NumberField(
            required=False, min_value=0, initial=0, label="Trials at once", help_text="0: as many as there are workers."
        )

    def show(self, error: Any) -> None:
        fields = {_renamed(path): fault for path, fault in error.fields.items()}
        error.fields = fields
        super().show(error)

    def search_request(self) -> SearchRequest:
        """The search as the REST API would be asked for it."""
        said = self.cleaned_data
        told = {name: said.get(f"space.{name}") for name in self.trainer.Params.model_fields}
        written = {name: written_dimension(text) for name, text in told.items() if text}
        names = ("metric", "method", "trials", "seed", "parallel")
        plan = {name: said[name] for name in names if said.get(name) is not None} | {"prune": bool(said["prune"])}
        return SearchRequest(
            run=self.asked({name: value for name, value in written.items() if not _is_dimension(value)}),
            space={name: value for name, value in written.items() if _is_dimension(value)},
            plan=plan,
        )


def _is_dimension(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, dict) and "low" in value)


def _renamed(path: str) -> str:
    """Where the form has what the service names `params.NAME`."""
    return f"space.{path.removeprefix('params.')}" if path.startswith("params.") else path


def _best_first(metrics: Sequence[str]) -> list[str]:
    return sorted(metrics, key=lambda name: (name not in ("roc_auc", "r2"), name in LOWER_IS_BETTER, name))


def _trainers(version: DatasetVersion | None) -> list[tuple[str, str]]:
    """Those that learn from this kind of dataset."""
    is_of_images = version is not None and version.format == IMAGES
    offered = {name: trainer for name, trainer in TRAINERS.items() if (trainer.task == "detection") == is_of_images}
    return sorted(((name, trainer.title) for name, trainer in offered.items()), key=lambda named: named[1])
