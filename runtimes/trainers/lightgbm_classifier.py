"""LightGBM for classes."""

from __future__ import annotations

from typing import Any

from runtimes.trainers.lightgbm_trees import LightGBMParams, LightGBMTrainer


class LightGBMClassifierTrainer(LightGBMTrainer):
    """LightGBM's trees; takes missing values as they are."""

    name = "lightgbm_classifier"
    title = "LightGBM (classes)"
    task = "classification"

    def estimator(self) -> Any:
        """An LGBMClassifier with these parameters."""
        from lightgbm import LGBMClassifier  # heavy: in a runner only

        assert isinstance(self.params, LightGBMParams)
        return LGBMClassifier(**self.params.for_estimator())
