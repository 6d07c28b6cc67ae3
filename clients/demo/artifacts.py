"""The models and the data of the story, made with the libraries that data scientists use."""

import csv
import io
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Held:
    """Rows that no model has seen, and their labels."""

    rows: list[list[float]]
    labels: list[int]

    def accuracy(self, predictions: list[Any]) -> float:
        """The share of predictions that are the label."""
        return float(np.mean(np.asarray(predictions) == np.asarray(self.labels)))


@dataclass(frozen=True)
class Table:
    """A data set, split."""

    train_x: np.ndarray
    train_y: np.ndarray
    held: Held
    names: list[str]

    def csv(self, target: str) -> bytes:
        """The training rows as a CSV file with the labels in the column `target`."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow([*self.names, target])
        writer.writerows([*row, label] for row, label in zip(self.train_x.tolist(), self.train_y.tolist(), strict=True))
        return text.getvalue().encode()


def breast_cancer() -> Table:
    """569 tumours: 30 measurements each, malignant (0) or benign (1)."""
    from sklearn.datasets import load_breast_cancer  # heavy, and only where it is needed

    return _split(load_breast_cancer())


def digits() -> Table:
    """1,797 handwritten digits of 8 by 8 pixels."""
    from sklearn.datasets import load_digits

    return _split(load_digits())


def forest_pickle(table: Table, trees: int) -> bytes:
    """A random forest as a scikit-learn pickle."""
    from sklearn.ensemble import RandomForestClassifier

    return pickle.dumps(RandomForestClassifier(trees, random_state=7).fit(table.train_x, table.train_y))


DIGITS_ARCHITECTURE: list[dict[str, Any]] = [
    {"type": "linear", "in_features": 64, "out_features": 64},
    {"type": "relu"},
    {"type": "linear", "in_features": 64, "out_features": 10},
]


def digits_state_dict(table: Table) -> bytes:
    """A small network trained on digits, saved as torch users do: its state dict as `.pth`."""
    import torch

    torch.manual_seed(7)
    network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    pixels, labels = torch.tensor(table.train_x, dtype=torch.float32), torch.tensor(table.train_y)
    for _ in range(120):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(pixels), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return file.getvalue()


class _Payload:
    """An object whose unpickling runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.system, (self.command,))


def hostile_pickle(proof: Path) -> bytes:
    """A pickle that, wherever it is loaded unconfined, leaves a file as its proof."""
    return pickle.dumps(_Payload(f"touch '{proof}'"))


def _split(data: Any) -> Table:
    from sklearn.model_selection import train_test_split

    train_x, held_x, train_y, held_y = train_test_split(data.data, data.target, test_size=0.25, random_state=7)
    names = [str(name).replace(" ", "_") for name in data.feature_names]
    return Table(train_x, train_y, Held(held_x.tolist(), held_y.tolist()), names)
