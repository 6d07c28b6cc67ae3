"""What the two LightGBM trainers have in common."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from runtimes.trainers.estimator import STEPS, EstimatorTrainer
from runtimes.trainers.trainer import TrainerParams


class LightGBMParams(TrainerParams):
    """Parameters of LightGBM, under its scikit-learn names."""

    n_estimators: int = Field(default=100, ge=1, le=10_000, description="How many trees.")
    learning_rate: float = Field(default=0.1, gt=0, le=10, description="How much of each tree is kept.")
    num_leaves: int = Field(default=31, ge=2, le=10_000, description="The leaves of a tree.")
    max_depth: int = Field(default=-1, ge=-1, le=100, description="The depth of a tree; unbounded if -1.")
    min_child_samples: int = Field(default=20, ge=1, description="The fewest rows in a leaf.")
    subsample: float = Field(default=1.0, gt=0, le=1, description="The part of the rows that a tree sees.")
    colsample_bytree: float = Field(default=1.0, gt=0, le=1, description="The part of the columns that a tree sees.")
    reg_lambda: float = Field(default=0.0, ge=0, description="The strength of the L2 regularisation.")
    reg_alpha: float = Field(default=0.0, ge=0, description="The strength of the L1 regularisation.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of the random numbers.")

    def for_estimator(self) -> dict[str, Any]:
        """The parameters as its estimators take them; one thread, for runs share a machine."""
        named = self.model_dump()
        bagging = {"subsample_freq": 1} if self.subsample < 1 else {}
        fixed = {"random_state": named.pop("seed"), "n_jobs": 1, "deterministic": True, "verbosity": -1}
        return fixed | bagging | named


class LightGBMTrainer(EstimatorTrainer):
    """Fits LightGBM's trees, where it is installed."""

    Params = LightGBMParams
    preparation = "ordinal"
    requires = ("lightgbm",)

    def fit_estimator(self, rows: Any, target: Any, on_step: Any) -> Any:
        """The fitted estimator; its progress is told now and then."""
        total = self.params.model_dump()["n_estimators"]

        def tell(state: Any) -> None:
            if (state.iteration + 1) % max(1, total // STEPS) == 0:
                on_step((state.iteration + 1) / total, None)

        return self.estimator().fit(rows, target, callbacks=[tell])
