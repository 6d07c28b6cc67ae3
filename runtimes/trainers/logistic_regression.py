"""Logistic regression."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from runtimes.trainers.estimator import EstimatorTrainer
from runtimes.trainers.trainer import TrainerParams


class LogisticRegressionParams(TrainerParams):
    """Parameters of a logistic regression."""

    C: float = Field(default=1.0, gt=0, description="Inverse of the regularisation's strength.")
    max_iter: int = Field(default=1000, ge=1, le=100_000, description="The most iterations of the solver.")
    class_weight: Literal["balanced"] | None = Field(default=None, description="Weigh classes by their rarity.")


class LogisticRegressionTrainer(EstimatorTrainer):
    """A linear classifier with calibrated probabilities, quick to fit and to explain."""

    name = "logistic_regression"
    title = "Logistic regression"
    task = "classification"
    Params = LogisticRegressionParams
    preparation = "scaled"

    def estimator(self) -> Any:
        """A LogisticRegression with these parameters."""
        from sklearn.linear_model import LogisticRegression  # heavy: in a runner only

        return LogisticRegression(**self.params.model_dump())
