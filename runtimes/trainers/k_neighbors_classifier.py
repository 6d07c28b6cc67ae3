"""Nearest neighbours for classes."""

from __future__ import annotations

from typing import Any

from runtimes.trainers.estimator import EstimatorTrainer
from runtimes.trainers.k_neighbors import NeighborsParams


class KNeighborsClassifierTrainer(EstimatorTrainer):
    """The rows that are nearest vote."""

    name = "k_neighbors_classifier"
    title = "Nearest neighbours (classes)"
    task = "classification"
    Params = NeighborsParams
    preparation = "scaled"

    def estimator(self) -> Any:
        """A KNeighborsClassifier with these parameters."""
        from sklearn.neighbors import KNeighborsClassifier  # heavy: in a runner only

        return KNeighborsClassifier(**self.params.model_dump())
