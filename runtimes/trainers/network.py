"""A multilayer perceptron in torch, fitted to a table of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from runtimes import examples
from runtimes.formats import layers
from runtimes.formats.pytorch import INPUT_NAME, TorchPredictor
from runtimes.signature import Field, Signature
from runtimes.trainers.mlp import MlpParams
from runtimes.trainers.trainer import Watch

HELD_BACK = 0.1
TINY = 1e-12
PREDICTED_AT_ONCE = 10_000


class FittedNetwork:
    """A network with its architecture as a list of layers, which is what its state dict needs to be loaded again."""

    file_name, format = "model.pth", "torch"

    def __init__(self, network: nn.Sequential, architecture: list[Any], columns: list[str], classes: Any) -> None:
        self._network, self._architecture = network.eval(), architecture
        self.columns, self.classes_ = columns, classes

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """One number or class a row."""
        scores = self._scores(features)
        return scores[:, 0] if self.classes_ is None else np.asarray(self.classes_)[scores.argmax(axis=1)]

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
        """A classifier's probabilities."""
        return self._scores(features)

    def signature(self, features: pd.DataFrame) -> Signature:
        """One tensor with the columns side by side, and what a prediction of these rows gives."""
        inputs = (Field(INPUT_NAME, "float32", (-1, len(self.columns))),)
        classes = None if self.classes_ is None else tuple(self.classes_.tolist())
        predictor = TorchPredictor(self._network, Signature("tensor", inputs, (), classes))
        outputs = predictor.predict(rows_of(features[self.columns]), probabilities=False).outputs
        fields = tuple(examples.field_of(name, values) for name, values in outputs.items())
        return Signature("tensor", inputs, fields, classes)

    def declared(self) -> Mapping[str, Any]:
        """The architecture, and the classes' names. `columns` says in which order the tensor has them."""
        labels = {} if self.classes_ is None else {"labels": self.classes_.tolist()}
        return {"architecture": {"layers": self._architecture, "columns": self.columns}, **labels}

    def save(self, file: Any) -> None:
        """Write the state dict."""
        torch.save(self._network.state_dict(), file)

    def _scores(self, features: pd.DataFrame) -> np.ndarray:
        rows: Any = torch.from_numpy(rows_of(features[self.columns]))
        with torch.inference_mode():
            return np.concatenate([self._network(part).numpy() for part in rows.split(PREDICTED_AT_ONCE)]).astype(float)


def rows_of(features: pd.DataFrame) -> np.ndarray:
    """The columns side by side as float32.

    Raises:
        ValueError: a column holds words, or lacks a value: a network's tensor can say neither.
    """
    for name, column in features.items():
        if column.dtype == object:
            raise ValueError(f"column '{name}' holds words, and this trainer takes numbers only")
        if column.isna().any():
            raise ValueError(f"column '{name}' has missing values, which a tensor cannot have")
    return np.ascontiguousarray(features.to_numpy(dtype=np.float32))


def fit_network(
    features: pd.DataFrame, target: pd.Series, params: MlpParams, *, is_classifier: bool, watch: Watch
) -> FittedNetwork:
    """The network after its last epoch, or after its best one where it stops early."""
    torch.manual_seed(params.seed)
    torch.use_deterministic_algorithms(True)
    rows = torch.from_numpy(rows_of(features))
    classes, truth = _truth(target, is_classifier=is_classifier)
    described = _layers(rows.shape[1], 1 if classes is None else len(classes), params, is_classifier=is_classifier)
    network: Any = layers.build({"layers": described}).to_empty(device="cpu")
    for layer in network:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    _standardise(network[0], rows)
    centre, scale = (truth.mean(0), truth.std(0, correction=0).clamp(min=TINY)) if classes is None else (0.0, 1.0)
    learner: Any = nn.Sequential(*(layer for layer in network[1:] if not isinstance(layer, nn.Softmax)))
    standardised = network[0].eval()(rows)
    _Fit(learner, params, is_classifier=is_classifier, watch=watch).run(
        standardised, (truth - centre) / scale if classes is None else truth
    )
    if classes is None:
        with torch.no_grad():  # the last layer gives the number as it is
            learner[-1].weight.mul_(scale)
            learner[-1].bias.mul_(scale).add_(centre)
    return FittedNetwork(network, described, [str(name) for name in features.columns], classes)


def _truth(target: pd.Series, *, is_classifier: bool) -> tuple[Any, torch.Tensor]:
    if not is_classifier:
        return None, torch.from_numpy(target.to_numpy(dtype=np.float32).copy())[:, None]
    classes, codes = np.unique(target.to_numpy(), return_inverse=True)
    return classes, torch.from_numpy(codes.astype(np.int64))


def _layers(inputs: int, outputs: int, params: MlpParams, *, is_classifier: bool) -> list[Any]:
    """The network from its columns as they are to its answer; a batch norm that never learns standardises them."""
    built: list[Any] = [{"type": "batchnorm1d", "num_features": inputs, "affine": False, "eps": TINY}]
    for units in params.hidden:
        built += [{"type": "linear", "in_features": inputs, "out_features": units}, {"type": params.activation}]
        built += [{"type": "dropout", "p": params.dropout}] if params.dropout else []
        inputs = units
    built.append({"type": "linear", "in_features": inputs, "out_features": outputs})
    return [*built, {"type": "softmax", "dim": 1}] if is_classifier else built


def _standardise(norm: Any, rows: torch.Tensor) -> None:
    norm.running_mean.copy_(rows.mean(0))
    norm.running_var.copy_(rows.var(0, correction=0).clamp(min=TINY))


class _Fit:
    """Some epochs of Adam, told one by one."""

    def __init__(self, network: nn.Sequential, params: MlpParams, *, is_classifier: bool, watch: Watch) -> None:
        self._network, self._params, self._watch = network, params, watch
        self._loss: Any = nn.CrossEntropyLoss() if is_classifier else nn.MSELoss()
        self._random = torch.Generator().manual_seed(params.seed)

    def run(self, rows: torch.Tensor, truth: torch.Tensor) -> None:
        held = int(len(rows) * HELD_BACK) if self._params.patience else 0
        order = torch.randperm(len(rows), generator=self._random)
        kept, train = order[:held], order[held:]
        optimizer = torch.optim.Adam(
            self._network.parameters(), lr=self._params.learning_rate, weight_decay=self._params.weight_decay
        )
        best, best_state, waited = float("inf"), None, 0
        for epoch in range(1, self._params.epochs + 1):
            told = {"train_loss": self._epoch(rows[train], truth[train], optimizer)}
            if held:
                told["validation_loss"] = self._loss_of(rows[kept], truth[kept])
                waited = 0 if told["validation_loss"] < best else waited + 1
                if waited == 0:
                    best = told["validation_loss"]
                    best_state = {name: value.clone() for name, value in self._network.state_dict().items()}
            self._watch(epoch / self._params.epochs, metrics=told)
            if held and waited >= self._params.patience:
                break
        if best_state is not None:
            self._network.load_state_dict(best_state)
        self._network.eval()

    def _epoch(self, rows: torch.Tensor, truth: torch.Tensor, optimizer: Any) -> float:
        self._network.train()
        total = 0.0
        order: Any = torch.randperm(len(rows), generator=self._random)
        for places in order.split(self._params.batch_size):
            optimizer.zero_grad()
            loss = self._loss(self._network(rows[places]), truth[places])
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(places)
        return total / len(rows)

    def _loss_of(self, rows: torch.Tensor, truth: torch.Tensor) -> float:
        self._network.eval()
        with torch.inference_mode():
            return float(self._loss(self._network(rows), truth))
