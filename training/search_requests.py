"""What a caller asks a search to be, and the check of all of it before anything is kept."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common.errors import Invalid
from models_registry.metadata import storable_fault
from runtimes.errors import plain
from runtimes.trainers import TRAINERS, Trainer
from runtimes.trainers.trainer import MOST_WHOLE
from training.run_requests import LOWER_IS_BETTER, METRICS, CheckedRun, RunRequest, check

MOST_TRIALS, MOST_CHOICES, MOST_DIMENSIONS = 500, 100, 20
DEFAULT_TRIALS, DEFAULT_STEPS = 16, 5
FARTHEST = 1e300  # of a range's bounds, so that the way between them is a number, too


class Range(BaseModel):
    """Numbers between two bounds: whole ones where both bounds are. log: as likely in each order of magnitude.

    steps: how many of them a grid has.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    low: int | float = Field(ge=-FARTHEST, le=FARTHEST)
    high: int | float = Field(ge=-FARTHEST, le=FARTHEST)
    log: bool = False
    steps: int = Field(default=DEFAULT_STEPS, ge=2, le=MOST_CHOICES)

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are meant."""
        bounds = (self.low, self.high)
        return all(isinstance(bound, int) and abs(bound) <= MOST_WHOLE for bound in bounds)

    @property
    def is_sound(self) -> bool:
        """Whether there is anything between its bounds."""
        return self.low < self.high and (self.low > 0 or not self.log)

    def at(self, part: float) -> int | float:
        """The number that lies at a part of the way from low to high."""
        if self.log:
            value = math.exp(math.log(self.low) + part * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + part * (self.high - self.low)
        value = min(max(value, self.low), self.high)
        return round(value) if self.is_whole else float(value)

    def drawn(self, part: float) -> int | float:
        """The number that a chance from 0 to 1 means: of whole ones that lie evenly, each has the same share."""
        if not self.is_whole or self.log:
            return self.at(part)
        return min(int(self.low) + int(part * (self.high - self.low + 1)), int(self.high))


Choices = Annotated[list[Any], Field(min_length=1, max_length=MOST_CHOICES)]
Dimension = Choices | Range
DIMENSION: TypeAdapter[Choices | Range] = TypeAdapter(Dimension)


class SearchPlan(BaseModel):
    """How a search goes about it. parallel: how many trials at once; 0 for as many as there are workers."""

    model_config = ConfigDict(extra="forbid", strict=True)

    method: Literal["grid", "random", "bayes"] = "random"
    trials: int = Field(default=DEFAULT_TRIALS, ge=1, le=MOST_TRIALS)
    metric: str = Field(min_length=1, max_length=100)
    direction: Literal["max", "min"] | None = None
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    prune: bool = True
    parallel: int = Field(default=0, ge=0, le=100)

    @property
    def sense(self) -> str:
        """Which values are better; unless it was said, that of the metric."""
        return self.direction or ("min" if self.metric in LOWER_IS_BETTER else "max")


@dataclass(frozen=True)
class SearchRequest:
    """A search as it was asked for: a run's request, whose parameters are what all trials share, and the space."""

    run: RunRequest
    space: Mapping[str, Any]
    plan: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckedSearch:
    """A search that can be carried out."""

    run: CheckedRun
    search: dict[str, Any]


def check_search(request: SearchRequest) -> CheckedSearch:
    """The request with what it names found; call it in the transaction that keeps it.

    Raises:
        Invalid: with every fault by its field's path, such as `space.n_estimators`.
    """
    faults: dict[str, str] = {}
    trainer = TRAINERS.get(request.run.trainer)
    plan = _plan(request, trainer, faults)
    if trainer is not None:
        _check_space(request, trainer, faults)
    if request.run.validation.get("kind") == "none":
        faults["validation.kind"] = "Without validation there is nothing to compare trials by."
    try:
        checked = check(request.run)
    except Invalid as error:
        faults = error.fields | faults
    if faults or plan is None:
        raise Invalid("This search cannot be carried out as it was asked for; `fields` says why.", fields=faults)
    told = plan.model_dump() | {"direction": plan.sense, "trials": _trials(plan, request), "space": dict(request.space)}
    return CheckedSearch(checked, told)


def _plan(request: SearchRequest, trainer: type[Trainer] | None, faults: dict[str, str]) -> SearchPlan | None:
    try:
        plan = SearchPlan.model_validate(request.plan)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False, include_input=False):
            where = ".".join(str(part) for part in detail["loc"])
            faults[plain(where, 200) or "search"] = f"{detail['msg']}."
        return None
    if trainer is not None and plan.metric not in METRICS[trainer.task]:
        faults["metric"] = f"This trainer measures {', '.join(METRICS[trainer.task])}."
    return plan


def _check_space(request: SearchRequest, trainer: type[Trainer], faults: dict[str, str]) -> None:
    if not 1 <= len(request.space) <= MOST_DIMENSIONS:
        faults["space"] = f"It names 1 to {MOST_DIMENSIONS} parameters."
        return
    if fault := storable_fault(dict(request.space)):
        faults["space"] = f"The value {fault}."
        return
    for name, told in request.space.items():
        path = plain(f"space.{name}", 200)
        if name not in trainer.Params.model_fields:
            faults[path] = "This trainer has no such parameter."
        elif fault := _dimension_fault(name, told, request, trainer):
            faults[path] = fault


def _dimension_fault(name: str, told: Any, request: SearchRequest, trainer: type[Trainer]) -> str:
    try:
        dimension = DIMENSION.validate_python(told)
    except ValidationError:
        return f'It is a list of 1 to {MOST_CHOICES} values, or {{"low", "high", "log", "steps"}}.'
    if isinstance(dimension, Range) and not dimension.is_sound:
        return "low is less than high, and with log more than 0."
    values = dimension if isinstance(dimension, list) else [dimension.low, dimension.high]
    for value in values:
        try:
            trainer.Params.model_validate({**request.run.params, name: value})
        except ValidationError as error:
            return f"{plain(value, 60)}: {error.errors()[0]['msg']}."
    return ""


def _trials(plan: SearchPlan, request: SearchRequest) -> int:
    """How many trials there are: of a grid all of its points, unless fewer were asked for.

    Raises:
        Invalid: the grid has more points than a search has trials, and nobody said how many of them to try.
    """
    if plan.method != "grid":
        return plan.trials
    points = grid_size(request.space)
    if "trials" in plan.model_fields_set:
        return min(plan.trials, points)
    if points > MOST_TRIALS:
        told = (
            f"The grid has {points} points, and a search at most {MOST_TRIALS} trials; name fewer values, or `trials`."
        )
        raise Invalid(
            "This search cannot be carried out as it was asked for; `fields` says why.", fields={"space": told}
        )
    return points


def grid_size(space: Mapping[str, Any]) -> int:
    """How many points the grid over this space has."""
    return math.prod(len(_points(told)) for told in space.values())


def grid_point(space: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The grid's point of this number, from 0 on."""
    for place, point in enumerate(itertools.product(*(_points(told) for told in space.values()))):
        if place == number:
            return dict(zip(space, point, strict=True))
    raise IndexError(number)


def _points(told: Any) -> list[Any]:
    dimension = DIMENSION.validate_python(told)
    if isinstance(dimension, list):
        return dimension
    return list(dict.fromkeys(dimension.at(step / (dimension.steps - 1)) for step in range(dimension.steps)))
