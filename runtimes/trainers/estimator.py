"""Trainers that fit an estimator with scikit-learn's interface behind a preparation of the columns."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

from runtimes.trainers.trainer import Fitted, Trainer, Watch

STEPS = 20

Preparation = Literal["scaled", "imputed", "ordinal", "text"]


class EstimatorTrainer(Trainer):
    """Fits an estimator.

    preparation: what the columns need first: "scaled" (imputed, one-hot, standardised), "imputed" (imputed, one-hot),
    "ordinal" (numbers as they are, missing values included, and codes for strings) or "text" (TF-IDF of the texts).
    Whichever it is, dates become numbers.
    grows_by: the estimator's parameter that counts its steps, if it can be fitted a few steps at a time.
    """

    preparation: ClassVar[Preparation]
    grows_by: ClassVar[str | None] = None

    @abstractmethod
    def estimator(self) -> Any:
        """The unfitted estimator; imports its library, so only a runner calls it."""

    def columns(self, features: Any) -> list[str]:
        """The columns that the model looks at: all of them."""
        return [str(name) for name in features.columns]

    def transformer(self, features: Any) -> Any:
        """The unfitted preparation of these columns."""
        from runtimes.preparation import transformer  # it imports scikit-learn

        return transformer(features, self.preparation)

    def fit(self, features: Any, target: Any, watch: Watch) -> Fitted:
        """A pipeline of the preparation and the estimator."""
        from runtimes.trainers.pipeline import FittedPipeline  # it imports scikit-learn

        columns = self.columns(features)
        prepare = self.transformer(features[columns])
        rows = prepare.fit_transform(features[columns])

        def tell(fraction: float, estimator: Any) -> None:
            watch(fraction, model=None if estimator is None else FittedPipeline(prepare, estimator, columns))

        return FittedPipeline(prepare, self.fit_estimator(rows, target.to_numpy(), tell), columns)

    def fit_estimator(self, rows: Any, target: Any, on_step: Any) -> Any:
        """The fitted estimator; `on_step(fraction, estimator)` hears how much of it is done.

        rows: (n, features), prepared. target: (n,) numbers, or strings as an object array.
        """
        estimator = self.estimator()
        if self.grows_by is None or estimator.get_params().get("early_stopping"):
            return estimator.fit(rows, target)
        return _grow(estimator, self.grows_by, rows, target, on_step)


def _grow(estimator: Any, parameter: str, rows: Any, target: Any, on_step: Any) -> Any:
    """Fit in equal parts with warm_start, which gives the estimator that one fit would have given."""
    total = int(estimator.get_params()[parameter])
    estimator.set_params(warm_start=True)
    for count in sorted({max(1, total * step // STEPS) for step in range(1, STEPS + 1)}):
        estimator.set_params(**{parameter: count}).fit(rows, target)
        on_step(count / total, estimator)
    return estimator.set_params(warm_start=False)
