"""torch files, in their own library set, whose zygote starts with the first of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from runtimes.client import HostClient
from tests.runtimes.payloads import Call
from tests.runtimes.test_formats import inspected, rejection, served

torch = pytest.importorskip("torch")
nn = torch.nn

ROWS = np.random.default_rng(5).normal(size=(6, 16)).astype("float32")
MLP = [
    {"type": "linear", "in_features": 16, "out_features": 8},
    {"type": "relu"},
    {"type": "linear", "in_features": 8, "out_features": 3},
]
CNN = [
    {"type": "reshape", "shape": [1, 4, 4]},
    {"type": "conv2d", "in_channels": 1, "out_channels": 2, "kernel_size": 3, "padding": 1},
    {"type": "batchnorm2d", "num_features": 2},
    {"type": "relu"},
    {"type": "maxpool2d", "kernel_size": 2},
    {"type": "flatten"},
    {"type": "dropout", "p": 0.5},
    {"type": "linear", "in_features": 8, "out_features": 3},
]


def mlp() -> Any:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def cnn() -> Any:
    torch.manual_seed(1)
    layers = [nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 3)).eval()


def saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def scripted(model: Any) -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(model), file)
    return file.getvalue()


FILES: dict[str, tuple[Callable[[], Any], Callable[[Any], bytes], dict[str, Any]]] = {
    "state dict": (mlp, lambda model: saved(model.state_dict()), {"architecture": MLP}),
    "state dict of a CNN": (cnn, lambda model: saved(model.state_dict()), {"architecture": CNN}),
    "old file": (
        mlp,
        lambda model: saved(model.state_dict(), _use_new_zipfile_serialization=False),
        {"architecture": MLP},
    ),
    "checkpoint": (mlp, lambda model: saved({"epoch": 3, "state_dict": model.state_dict()}), {"architecture": MLP}),
    "whole module": (mlp, saved, {}),
    "script": (cnn, scripted, {"input_example": ROWS[:2].tolist()}),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_network_predicts_as_it_does_at_home(client: HostClient, kind: str) -> None:
    make, write, metadata = FILES[kind]
    model = make()
    data = write(model)
    found = inspected(client, data, labels=["a", "b", "c"], **metadata)

    prediction = served(client, data, ROWS, found, probabilities=True, labels=["a", "b", "c"], **metadata)

    scores = torch.softmax(model(torch.from_numpy(ROWS)), dim=1).detach().numpy()
    assert found.task == "classification"
    assert found.signature.inputs[0].shape == (-1, 16)
    assert "torch" in found.libraries
    assert prediction.outputs["prediction"].tolist() == [["a", "b", "c"][place] for place in scores.argmax(axis=1)]
    np.testing.assert_allclose(prediction.probabilities, scores, atol=1e-6)  # type: ignore[arg-type]


def test_a_network_without_labels_answers_its_own_numbers(client: HostClient) -> None:
    model = mlp()
    found = inspected(client, saved(model))

    prediction = served(client, saved(model), ROWS, found)

    np.testing.assert_allclose(prediction.outputs["output"], model(torch.from_numpy(ROWS)).detach().numpy(), atol=1e-6)


def test_a_file_that_asks_torch_for_more_than_its_budget_is_told_so(client: HostClient) -> None:
    assert rejection(client, saved(Call(torch.zeros, 1 << 40))).code == "load_memory"


@pytest.mark.parametrize(
    ("content", "metadata", "code"),
    [
        (lambda: mlp().state_dict(), {}, "architecture_needed"),
        (lambda: mlp().state_dict(), {"architecture": CNN}, "architecture_mismatch"),
        (lambda: mlp().state_dict(), {"architecture": [{"type": "exec"}]}, "invalid_architecture"),
        (lambda: mlp().state_dict(), {"architecture": [{"type": "linear", "width": 1}]}, "invalid_architecture"),
        (mlp, {"labels": ["a"]}, "labels_mismatch"),
        (lambda: torch.zeros(3), {}, "no_predict_method"),
        (lambda: Call(open, "/etc/passwd"), {}, "confinement_violation"),
    ],
)
def test_what_cannot_be_served_is_rejected_with_a_stable_code(
    client: HostClient, content: Callable[[], Any], metadata: dict[str, Any], code: str
) -> None:
    assert rejection(client, saved(content()), **metadata).code == code


def test_a_damaged_file_is_rejected(client: HostClient) -> None:
    data = saved(mlp())
    for place in (10, len(data) // 2, len(data) - 5):
        rejection(client, data[:place])
