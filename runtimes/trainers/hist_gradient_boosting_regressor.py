"""Histogram gradient boosting for numbers."""

from __future__ import annotations

from typing import Any

from runtimes.trainers.boosting import BoostingParams
from runtimes.trainers.estimator import EstimatorTrainer


class HistGradientBoostingRegressorTrainer(EstimatorTrainer):
    """Trees that correct each other; takes missing values as they are."""

    name = "hist_gradient_boosting_regressor"
    title = "Histogram gradient boosting (numbers)"
    task = "regression"
    Params = BoostingParams
    preparation = "ordinal"
    grows_by = "max_iter"

    def estimator(self) -> Any:
        """A HistGradientBoostingRegressor with these parameters."""
        from sklearn.ensemble import HistGradientBoostingRegressor  # heavy: in a runner only

        assert isinstance(self.params, BoostingParams)
        return HistGradientBoostingRegressor(**self.params.for_estimator())
