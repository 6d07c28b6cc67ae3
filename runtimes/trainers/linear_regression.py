"""Linear regression."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from runtimes.trainers.estimator import EstimatorTrainer
from runtimes.trainers.trainer import TrainerParams


class LinearRegressionParams(TrainerParams):
    """Parameters of a linear regression."""

    fit_intercept: bool = Field(default=True, description="Whether the line may miss the origin.")
    positive: bool = Field(default=False, description="Whether every coefficient must be positive.")


class LinearRegressionTrainer(EstimatorTrainer):
    """Ordinary least squares."""

    name = "linear_regression"
    title = "Linear regression"
    task = "regression"
    Params = LinearRegressionParams
    preparation = "scaled"

    def estimator(self) -> Any:
        """A LinearRegression with these parameters."""
        from sklearn.linear_model import LinearRegression  # heavy: in a runner only

        return LinearRegression(**self.params.model_dump())
