"""Random forest for numbers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from runtimes.trainers.estimator import EstimatorTrainer
from runtimes.trainers.forest import ForestParams


class RandomForestRegressorParams(ForestParams):
    """Parameters of a random forest of regressors."""

    max_features: Literal["sqrt", "log2"] | float | None = Field(
        default=1.0, description="The columns tried at a split: a rule, a part between 0 and 1, or all if empty."
    )


class RandomForestRegressorTrainer(EstimatorTrainer):
    """Many decision trees whose answers are averaged."""

    name = "random_forest_regressor"
    title = "Random forest (numbers)"
    task = "regression"
    Params = RandomForestRegressorParams
    preparation = "imputed"
    grows_by = "n_estimators"

    def estimator(self) -> Any:
        """A RandomForestRegressor with these parameters."""
        from sklearn.ensemble import RandomForestRegressor  # heavy: in a runner only

        assert isinstance(self.params, ForestParams)
        return RandomForestRegressor(**self.params.for_estimator())
