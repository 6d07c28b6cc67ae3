"""What the two XGBoost trainers have in common."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from runtimes.trainers.estimator import EstimatorTrainer
from runtimes.trainers.trainer import TrainerParams


class XGBoostParams(TrainerParams):
    """Parameters of XGBoost, under its own names."""

    n_estimators: int = Field(default=100, ge=1, le=10_000, description="How many trees.")
    learning_rate: float = Field(default=0.3, gt=0, le=10, description="How much of each tree is kept.")
    max_depth: int = Field(default=6, ge=1, le=100, description="The depth of a tree.")
    min_child_weight: float = Field(default=1.0, ge=0, description="The least weight of a leaf's rows.")
    subsample: float = Field(default=1.0, gt=0, le=1, description="The part of the rows that a tree sees.")
    colsample_bytree: float = Field(default=1.0, gt=0, le=1, description="The part of the columns that a tree sees.")
    reg_lambda: float = Field(default=1.0, ge=0, description="The strength of the L2 regularisation.")
    reg_alpha: float = Field(default=0.0, ge=0, description="The strength of the L1 regularisation.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of the random numbers.")

    def for_estimator(self) -> dict[str, Any]:
        """The parameters as its estimators take them; one thread, for runs share a machine."""
        named = self.model_dump()
        return {"random_state": named.pop("seed"), "n_jobs": 1, "tree_method": "hist", **named}


class XGBoostTrainer(EstimatorTrainer):
    """Fits XGBoost's trees, where it is installed."""

    Params = XGBoostParams
    preparation = "ordinal"
    requires = ("xgboost",)
