"""A multilayer perceptron for numbers."""

from __future__ import annotations

from runtimes.trainers.mlp import MlpTrainer


class MlpRegressorTrainer(MlpTrainer):
    """A small neural network over columns of numbers (torch)."""

    name = "mlp_regressor"
    title = "Neural network (numbers)"
    task = "regression"
