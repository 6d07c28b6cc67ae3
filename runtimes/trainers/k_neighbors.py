"""What the two nearest-neighbour trainers have in common."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runtimes.trainers.trainer import TrainerParams


class NeighborsParams(TrainerParams):
    """Parameters of k nearest neighbours."""

    n_neighbors: int = Field(default=5, ge=1, le=10_000, description="How many neighbours are asked.")
    weights: Literal["uniform", "distance"] = Field(default="uniform", description="Whether nearer ones count more.")
    metric: Literal["euclidean", "manhattan", "cosine"] = Field(default="euclidean", description="What is near.")
