"""XGBoost for numbers."""

from __future__ import annotations

from typing import Any

from runtimes.trainers.xgboost_trees import XGBoostParams, XGBoostTrainer


class XGBoostRegressorTrainer(XGBoostTrainer):
    """XGBoost's trees; takes missing values as they are."""

    name = "xgboost_regressor"
    title = "XGBoost (numbers)"
    task = "regression"

    def estimator(self) -> Any:
        """An XGBRegressor with these parameters."""
        from xgboost import XGBRegressor  # heavy: in a runner only

        assert isinstance(self.params, XGBoostParams)
        return XGBRegressor(**self.params.for_estimator())
