"""Histogram gradient boosting for classes."""

from __future__ import annotations

from typing import Any

from runtimes.trainers.boosting import BoostingParams
from runtimes.trainers.estimator import EstimatorTrainer


class HistGradientBoostingClassifierTrainer(EstimatorTrainer):
    """Trees that correct each other; takes missing values as they are."""

    name = "hist_gradient_boosting_classifier"
    title = "Histogram gradient boosting (classes)"
    task = "classification"
    Params = BoostingParams
    preparation = "ordinal"
    grows_by = "max_iter"

    def estimator(self) -> Any:
        """A HistGradientBoostingClassifier with these parameters."""
        from sklearn.ensemble import HistGradientBoostingClassifier  # heavy: in a runner only

        assert isinstance(self.params, BoostingParams)
        return HistGradientBoostingClassifier(**self.params.for_estimator())
