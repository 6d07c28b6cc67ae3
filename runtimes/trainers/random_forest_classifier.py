"""Random forest for classes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from runtimes.trainers.estimator import EstimatorTrainer
from runtimes.trainers.forest import ForestParams


class RandomForestClassifierParams(ForestParams):
    """Parameters of a random forest of classifiers."""

    class_weight: Literal["balanced", "balanced_subsample"] | None = Field(
        default=None, description="Weigh classes by their rarity."
    )


class RandomForestClassifierTrainer(EstimatorTrainer):
    """Many decision trees that vote."""

    name = "random_forest_classifier"
    title = "Random forest (classes)"
    task = "classification"
    Params = RandomForestClassifierParams
    preparation = "imputed"
    grows_by = "n_estimators"

    def estimator(self) -> Any:
        """A RandomForestClassifier with these parameters."""
        from sklearn.ensemble import RandomForestClassifier  # heavy: in a runner only

        assert isinstance(self.params, ForestParams)
        return RandomForestClassifier(**self.params.for_estimator())
