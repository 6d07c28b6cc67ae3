"""What the two random forests have in common."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from runtimes.trainers.trainer import TrainerParams


class ForestParams(TrainerParams):
    """Parameters of a random forest."""

    n_estimators: int = Field(default=100, ge=1, le=5_000, description="How many trees.")
    max_depth: int | None = Field(default=None, ge=1, le=1_000, description="The depth of a tree; unbounded if empty.")
    min_samples_leaf: int = Field(default=1, ge=1, description="The fewest rows in a leaf.")
    max_features: Literal["sqrt", "log2"] | float | None = Field(
        default="sqrt", description="The columns tried at a split: a rule, a part between 0 and 1, or all if empty."
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of the random numbers.")

    def for_estimator(self) -> dict[str, Any]:
        """The parameters under the names that scikit-learn gives them."""
        named = self.model_dump()
        return {"random_state": named.pop("seed"), **named}
