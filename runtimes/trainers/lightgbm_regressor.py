"""LightGBM for numbers."""

from __future__ import annotations

from typing import Any

from runtimes.trainers.lightgbm_trees import LightGBMParams, LightGBMTrainer


class LightGBMRegressorTrainer(LightGBMTrainer):
    """LightGBM's trees; takes missing values as they are."""

    name = "lightgbm_regressor"
    title = "LightGBM (numbers)"
    task = "regression"

    def estimator(self) -> Any:
        """An LGBMRegressor with these parameters."""
        from lightgbm import LGBMRegressor  # heavy: in a runner only

        assert isinstance(self.params, LightGBMParams)
        return LGBMRegressor(**self.params.for_estimator())
