"""What a trainer is: declared parameters, and an estimator made from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

STEPS = 20

OnFraction = Callable[[float], None]
Kind = Literal["classification", "regression"]
Preparation = Literal["scaled", "imputed", "ordinal"]


class TrainerParams(BaseModel):
    """Parameters of a trainer; a name that it does not know is refused."""

    model_config = ConfigDict(extra="forbid")


class Trainer(ABC):
    """Fits one kind of estimator.

    Params declares the parameters once: for validation, for the form and for the API's schema.
    preparation: what the columns need first: "scaled" (imputed, one-hot, standardised), "imputed" (imputed, one-hot) or
    "ordinal" (numbers as they are, missing values included, and codes for strings).
    grows_by: the estimator's parameter that counts its steps, if it can be fitted a few steps at a time.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    task: ClassVar[Kind]
    Params: ClassVar[type[TrainerParams]]
    preparation: ClassVar[Preparation]
    grows_by: ClassVar[str | None] = None

    def __init__(self, params: TrainerParams) -> None:
        self.params = params

    @abstractmethod
    def estimator(self) -> Any:
        """The unfitted scikit-learn estimator; imports scikit-learn, so only a runner calls it."""

    def fit(self, rows: Any, target: Any, on_fraction: OnFraction) -> Any:
        """The fitted estimator; `on_fraction` hears how much of it is done, between 0 and 1.

        rows: (n, features) float64, prepared. target: (n,) numbers, or strings as an object array.
        """
        estimator = self.estimator()
        if self.grows_by is None or estimator.get_params().get("early_stopping"):
            return estimator.fit(rows, target)
        return _grow(estimator, self.grows_by, rows, target, on_fraction)


def _grow(estimator: Any, parameter: str, rows: Any, target: Any, on_fraction: OnFraction) -> Any:
    """Fit in equal parts with warm_start, which gives the estimator that one fit would have given."""
    total = int(estimator.get_params()[parameter])
    estimator.set_params(warm_start=True)
    for count in sorted({max(1, total * step // STEPS) for step in range(1, STEPS + 1)}):
        estimator.set_params(**{parameter: count}).fit(rows, target)
        on_fraction(count / total)
    return estimator.set_params(warm_start=False)
