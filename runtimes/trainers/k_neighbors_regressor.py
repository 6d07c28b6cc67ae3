"""Nearest neighbours for numbers."""

from __future__ import annotations

from typing import Any

from runtimes.trainers.estimator import EstimatorTrainer
from runtimes.trainers.k_neighbors import NeighborsParams


class KNeighborsRegressorTrainer(EstimatorTrainer):
    """The rows that are nearest are averaged."""

    name = "k_neighbors_regressor"
    title = "Nearest neighbours (numbers)"
    task = "regression"
    Params = NeighborsParams
    preparation = "scaled"

    def estimator(self) -> Any:
        """A KNeighborsRegressor with these parameters."""
        from sklearn.neighbors import KNeighborsRegressor  # heavy: in a runner only

        return KNeighborsRegressor(**self.params.model_dump())
