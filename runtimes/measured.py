"""What was measured of a model on rows with their truth, as plain values; no library of models is needed to read it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from runtimes.signature import ClassName

MOST_CLASSES = 50
MOST_COLUMNS = 1_000
MOST_FOLDS = 20
MOST_METRICS = 100
MOST_CURVES, CURVE_POINTS = 10, 101
MOST_MISSES = 200
NAME_CHARS = 250


class Plain(BaseModel):
    """A value out of a runner, which may lie: nothing but what is declared, and finite numbers."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Histogram(Plain):
    """How many values lie between neighbouring edges; there is one edge more than counts."""

    edges: list[float] = Field(max_length=101)
    counts: list[int] = Field(max_length=100)


class Confusion(Plain):
    """How often each class (a row) was taken for each class (a column)."""

    labels: list[ClassName] = Field(max_length=MOST_CLASSES)
    counts: list[list[int]] = Field(max_length=MOST_CLASSES)


class Roc(Plain):
    """What part of the others (false) is taken for a class where so much of its own (true) is found.

    Both rise from 0 to 1, as the bar for the class is lowered.
    """

    label: ClassName
    false_rates: list[float] = Field(max_length=CURVE_POINTS)
    true_rates: list[float] = Field(max_length=CURVE_POINTS)


class Miss(Plain):
    """What was predicted for a row, and by how much the truth was more."""

    predicted: float
    residual: float


class Importance(Plain):
    """How much worse a model is when a column's values are shuffled: the mean and the spread over some shuffles."""

    column: str = Field(max_length=1_000)
    mean: float
    std: float


class Evaluation(Plain):
    """What was measured on rows that a model was not fitted on.

    rows: how many they were. metrics: of a cross-validation, the mean of its folds. folds: the metrics of each.
    confusion: of a classifier with few classes. roc: of one with probabilities, the second class's for two classes, and
    one a class for some more. residuals: of a regressor, truth less prediction. misses: some rows' own.
    importance: by permutation, in accuracy or R², the most important column first.
    """

    rows: int = Field(default=0, ge=0)
    metrics: dict[str, float] = Field(default_factory=dict, max_length=MOST_METRICS)
    folds: list[dict[str, float]] = Field(default_factory=list, max_length=MOST_FOLDS)
    confusion: Confusion | None = None
    roc: list[Roc] = Field(default_factory=list, max_length=MOST_CURVES)
    residuals: Histogram | None = None
    misses: list[Miss] = Field(default_factory=list, max_length=MOST_MISSES)
    importance: list[Importance] = Field(default_factory=list, max_length=MOST_COLUMNS)
