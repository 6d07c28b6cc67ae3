"""What the two multilayer perceptrons have in common."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from runtimes.trainers.trainer import Fitted, Trainer, TrainerParams, Watch


class MlpParams(TrainerParams):
    """Parameters of a multilayer perceptron."""

    hidden: list[int] = Field(
        default=[64, 32], min_length=1, max_length=10, description="How many units each hidden layer has."
    )
    activation: Literal["relu", "gelu", "tanh"] = Field(default="relu", description="What bends its lines.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="The part of the units that a step leaves out.")
    epochs: int = Field(default=50, ge=1, le=10_000, description="How often it sees every row.")
    batch_size: int = Field(default=64, ge=1, le=100_000, description="The rows of one step.")
    learning_rate: float = Field(default=0.001, gt=0, le=10, description="How long a step is (Adam).")
    weight_decay: float = Field(default=0.0, ge=0, description="The strength of the L2 regularisation.")
    patience: int = Field(
        default=0,
        ge=0,
        description="Stop when a tenth of the rows, held out, gets no better for so many epochs; 0: never.",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of the random numbers.")


class MlpTrainer(Trainer):
    """Fits a network of linear layers to columns of numbers; its artifact is a state dict."""

    Params = MlpParams
    library_set = "torch"
    requires = ("torch",)

    def fit(self, features: Any, target: Any, watch: Watch) -> Fitted:
        """The fitted network; the standardisation of its columns is folded into its first layer."""
        from runtimes.trainers.network import fit_network  # it imports torch

        assert isinstance(self.params, MlpParams)
        return fit_network(features, target, self.params, is_classifier=self.task == "classification", watch=watch)
