"""A multilayer perceptron for classes."""

from __future__ import annotations

from runtimes.trainers.mlp import MlpTrainer


class MlpClassifierTrainer(MlpTrainer):
    """A small neural network over columns of numbers (torch)."""

    name = "mlp_classifier"
    title = "Neural network (classes)"
    task = "classification"
