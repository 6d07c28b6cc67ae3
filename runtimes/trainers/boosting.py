"""What the two histogram gradient boosters have in common."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from runtimes.trainers.trainer import TrainerParams


class BoostingParams(TrainerParams):
    """Parameters of histogram gradient boosting."""

    max_iter: int = Field(default=100, ge=1, le=10_000, description="How many trees, at most.")
    learning_rate: float = Field(default=0.1, gt=0, le=10, description="How much of each tree is kept.")
    max_leaf_nodes: int | None = Field(default=31, ge=2, description="The leaves of a tree; unbounded if empty.")
    max_depth: int | None = Field(default=None, ge=1, le=1_000, description="The depth of a tree; unbounded if empty.")
    min_samples_leaf: int = Field(default=20, ge=1, description="The fewest rows in a leaf.")
    l2_regularization: float = Field(default=0.0, ge=0, description="The strength of the L2 regularisation.")
    early_stopping: bool = Field(default=False, description="Stop when a tenth of the rows, held out, gets no better.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of the random numbers.")

    def for_estimator(self) -> dict[str, Any]:
        """The parameters under the names that scikit-learn gives them."""
        named = self.model_dump()
        return {"random_state": named.pop("seed"), **named}
