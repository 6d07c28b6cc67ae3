"""What a caller asks a run to be, and the check of all of it before anything is kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import Invalid
from models_registry.metadata import storable_fault
from models_registry.models import is_name
from runtimes.errors import plain
from runtimes.trainers import TRAINERS, Trainer
from training.models import CUSTOM, Dataset, DatasetState, DatasetVersion
from training.tables import IMAGES

MAX_EXPERIMENT_CHARS = 250
METRICS: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "log_loss", "roc_auc"),
    "regression": ("mae", "r2", "rmse"),
    "detection": ("map50",),
}
LOWER_IS_BETTER = frozenset({"log_loss", "mae", "rmse"})

Settings = TypeVar("Settings", bound=BaseModel)


class Validation(BaseModel):
    """How a run's model is judged: on a share of the rows that it was not fitted on, on each of some folds, or not."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["holdout", "kfold", "none"] = "holdout"
    fraction: float = Field(default=0.2, ge=0.01, le=0.9)
    folds: int = Field(default=5, ge=2, le=20)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)

    def in_full(self) -> dict[str, Any]:
        """What counts for its kind, with every default filled in."""
        names = {"holdout": {"kind", "fraction", "seed"}, "kfold": {"kind", "folds", "seed"}, "none": {"kind"}}
        return self.model_dump(include=names[self.kind])


class ActivateIf(BaseModel):
    """By what a run's version must beat the one that serves, to be activated in its place."""

    model_config = ConfigDict(extra="forbid", strict=True)

    metric: str = Field(min_length=1, max_length=100)
    margin: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    direction: Literal["max", "min"] | None = None

    def in_full(self) -> dict[str, Any]:
        """The criterion with its direction: unless asked for otherwise, errors and losses are better when lower."""
        direction = self.direction or ("min" if self.metric in LOWER_IS_BETTER else "max")
        return {"metric": self.metric, "margin": self.margin, "direction": direction}


@dataclass(frozen=True)
class RunRequest:
    """A run as it was asked for. digest: of a version of the dataset; the newest one if empty.

    library_set: of a custom trainer.
    """

    trainer: str
    dataset: str
    target: str
    model: str
    digest: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    validation: Mapping[str, Any] = field(default_factory=dict)
    activate_if: Mapping[str, Any] | None = None
    experiment: str = ""
    library_set: str = ""


@dataclass(frozen=True)
class CheckedRun:
    """A run that can be carried out: everything named in it exists, and every default is filled in."""

    dataset_version: DatasetVersion
    params: dict[str, Any]
    validation: dict[str, Any]
    activate_if: dict[str, Any] | None


def check(request: RunRequest) -> CheckedRun:
    """The request with what it names found; call it in the transaction that keeps the run.

    Raises:
        Invalid: with every fault by its field's path, such as `params.n_estimators`.
    """
    faults: dict[str, str] = {}
    params, validation, activate_if = _checked_form(request, faults)
    version = checked_dataset(request.dataset, request.digest, request.target, faults)
    if version is not None and (fault := _kind_fault(request.trainer, version)):
        faults.setdefault("trainer", fault)
    if faults or version is None or params is None or validation is None:
        raise _refused(faults)
    return CheckedRun(
        dataset_version=version,
        params=params if isinstance(params, dict) else params.model_dump(mode="json"),
        validation=validation.in_full(),
        activate_if=activate_if.in_full() if activate_if else None,
    )


def _kind_fault(trainer: str, version: DatasetVersion) -> str:
    """Why the trainer cannot learn from this kind of dataset; empty if it can."""
    is_of_images = version.format == IMAGES
    if trainer in TRAINERS and is_of_images != (TRAINERS[trainer].task == "detection"):
        return "It takes images with annotations." if not is_of_images else "It takes tables, and this holds images."
    return "A program takes tables, and this holds images." if trainer == CUSTOM and is_of_images else ""


def check_form(request: RunRequest) -> None:
    """Go on only with a request that some tenant could carry out: all of it but the dataset is right.

    Raises:
        Invalid: as `check` does.
    """
    faults: dict[str, str] = {}
    _checked_form(request, faults)
    if faults:
        raise _refused(faults)


def _refused(faults: dict[str, str]) -> Invalid:
    return Invalid("This run cannot be carried out as it was asked for; `fields` says why.", fields=faults)


def _checked_form(
    request: RunRequest, faults: dict[str, str]
) -> tuple[BaseModel | dict[str, Any] | None, Validation | None, ActivateIf | None]:
    """The parts of a request that need no tenant to be judged."""
    params = _checked_params(request, faults)
    validation = parsed(Validation, request.validation, "validation", faults)
    activate_if = _checked_criterion(request, faults)
    if not is_name(request.model):
        faults["model"] = "A model's name is 1 to 100 of A-Z, a-z, 0-9, '.', '_', '-'."
    if len(request.experiment) > MAX_EXPERIMENT_CHARS:
        faults["experiment"] = f"An experiment's name has at most {MAX_EXPERIMENT_CHARS} characters."
    return params, validation, activate_if


def _checked_params(request: RunRequest, faults: dict[str, str]) -> BaseModel | dict[str, Any] | None:
    if request.trainer == CUSTOM:  # its program's schema is read where the program runs
        if fault := storable_fault(dict(request.params)):
            faults["params"] = f"The value {fault}."
        return dict(request.params)
    trainer: type[Trainer] | None = TRAINERS.get(request.trainer)
    if trainer is None:
        names = ", ".join([*sorted(TRAINERS), CUSTOM])
        faults["trainer"] = f"There is no trainer '{request.trainer[:100]}'; there are {names}."
        return None
    return parsed(trainer.Params, request.params, "params", faults)


def parsed_params(trainer: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """A trainer's parameters with every default filled in; they were checked before."""
    return TRAINERS[trainer].Params.model_validate(dict(params)).model_dump(mode="json")


def _checked_criterion(request: RunRequest, faults: dict[str, str]) -> ActivateIf | None:
    if request.activate_if is None:
        return None
    criterion = parsed(ActivateIf, request.activate_if, "activate_if", faults)
    trainer = TRAINERS.get(request.trainer)
    if criterion is None or trainer is None:
        return criterion
    if request.validation.get("kind") == "none":
        faults["activate_if"] = "Without validation nothing is measured that could be compared."
    elif request.trainer != CUSTOM and criterion.metric not in METRICS[trainer.task]:
        faults["activate_if.metric"] = f"This trainer measures {', '.join(METRICS[trainer.task])}."
    return criterion


def checked_dataset(name: str, digest: str, target: str, faults: dict[str, str]) -> DatasetVersion | None:
    """The version asked for, locked so that it cannot be deleted before the run that uses it is there."""
    versions = DatasetVersion.objects.filter(dataset__name=name).order_by("-created_at", "-pk")
    if digest:
        versions = versions.filter(digest=digest)
    version = versions.select_for_update(of=("self",), no_key=True).first()
    if version is None:
        is_known = digest and Dataset.objects.filter(name=name).exists()
        path = "digest" if is_known else "dataset"
        faults[path] = f"There is no dataset '{name[:100]}'" + (" of this digest." if is_known else ".")
        return None
    if version.state == DatasetState.REJECTED:
        faults["dataset"] = f"Its newest version is no table: {version.rejection_reason}"
    elif version.state == DatasetState.PROFILING:
        faults["dataset"] = "Its file is still being read; ask for the version with `wait`, and again then."
    elif target not in version.columns:
        faults["target"] = f"The dataset has no column '{target[:100]}'; it has {_named(version.columns)}."
    elif len(version.columns) < 2:
        faults["target"] = "The dataset has no column beside this one to learn from."
    return version


def _named(columns: list[str], most: int = 20) -> str:
    names = ", ".join(f"'{name[:60]}'" for name in columns[:most])
    return f"{names} and {len(columns) - most} more" if len(columns) > most else names


def parsed(kind: type[Settings], value: Any, path: str, faults: dict[str, str]) -> Settings | None:
    """The settings in a value; its faults are added by their paths."""
    try:
        settings = kind.model_validate(value)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False, include_input=False):
            where = ".".join([path, *(str(part) for part in detail["loc"])])
            faults.setdefault(plain(where, 200), f"{detail['msg']}.")
        return None
    if fault := storable_fault(settings.model_dump(mode="json")):
        faults[path] = f"The value {fault}."
    return settings
