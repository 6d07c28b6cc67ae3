"""torch networks whose class travels with them: weights with model.py, and whole modules."""

from __future__ import annotations

import io
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from runtimes.client import HostClient
from tests.runtimes.bundles import inspected, rejection, served

torch = pytest.importorskip("torch")

ROWS = np.random.default_rng(5).normal(size=(6, 4)).astype("float32")
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, hidden=8):
        super().__init__()
        self.first = nn.Linear(4, hidden)
        self.last = nn.Linear(hidden, 3)

    def forward(self, rows):
        return self.last(torch.relu(self.first(rows)))
"""
FACTORY = NET.replace("class Net", "class _Inner") + "\ndef build_model():\n    return _Inner(8)\n"


def home(source: str, name: str = "nets") -> ModuleType:
    """The author's module, as it was at home."""
    module = ModuleType(name)
    exec(source, module.__dict__)
    return module


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def network(**arguments: Any) -> Any:
    torch.manual_seed(4)
    return home(NET).Net(**arguments).eval()


def expected(model: Any) -> np.ndarray:
    values: np.ndarray = model(torch.from_numpy(ROWS)).detach().numpy()
    return values


@pytest.mark.parametrize(
    "source",
    [
        NET,
        FACTORY,
        FACTORY.replace("def build_model", "def model"),
        NET + "\nmodel = Net()\n",
        NET + "\nclass Part(nn.Module):\n    pass\n",
        NET.replace("class Net", "class Other") + "\nfrom torch.nn import Linear\n",
    ],
    ids=["class", "build_model()", "model()", "model", "usual name", "only class"],
)
@pytest.mark.parametrize("path", ["model.py", "code/model.py"])
def test_weights_find_their_network_in_model_py(client: HostClient, source: str, path: str) -> None:
    model = network()
    files = {"weights.pth": saved(model.state_dict()), path: source.encode()}
    found = inspected(client, files)

    assert (found.format, found.signature.inputs[0].shape) == ("torch", (-1, 4))
    np.testing.assert_allclose(served(client, files, ROWS, found).outputs["output"], expected(model), atol=1e-6)


def test_the_metadata_names_a_class_and_what_it_takes(client: HostClient) -> None:
    model = network(hidden=5)
    files = {"weights.pth": saved({"state_dict": model.state_dict(), "epoch": 3}), "model.py": NET.encode()}
    architecture = {"factory": "Net", "arguments": {"hidden": 5}}
    found = inspected(client, files, architecture=architecture)

    outputs = served(client, files, ROWS, found, architecture=architecture).outputs

    np.testing.assert_allclose(outputs["output"], expected(model), atol=1e-6)


@pytest.mark.parametrize("name", ["nets", "__main__"])
def test_a_whole_module_finds_its_class(client: HostClient, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = home(NET, name)
    monkeypatch.setitem(sys.modules, name, module)
    torch.manual_seed(4)
    model = module.Net().eval()
    files = {"model.pth": saved(model), f"{'model' if name == '__main__' else name}.py": NET.encode()}
    monkeypatch.undo()
    found = inspected(client, files)

    assert found.type_name == "Net"
    np.testing.assert_allclose(served(client, files, ROWS, found).outputs["output"], expected(model), atol=1e-6)


@pytest.mark.parametrize(
    ("source", "metadata", "code"),
    [
        ("x = 1", {}, "invalid_architecture"),
        (FACTORY.replace("def build_model", "class Other(_Inner): pass\n\ndef other"), {}, "invalid_architecture"),
        ("def build_model(width):\n    pass", {}, "invalid_architecture"),
        ("def build_model():\n    return 7", {}, "invalid_architecture"),
        (NET, {"architecture": {"factory": "Missing"}}, "invalid_architecture"),
        (NET, {"architecture": {"factory": "Net", "arguments": {"hidden": 3}}}, "architecture_mismatch"),
        ("import featuretools", {}, "missing_module"),
        ("def (", {}, "unreadable_artifact"),
    ],
)
def test_a_model_py_that_does_not_do_is_a_named_error(
    client: HostClient, source: str, metadata: dict[str, Any], code: str
) -> None:
    files = {"weights.pth": saved(network().state_dict()), "model.py": source.encode()}

    assert rejection(client, files, **metadata).code == code


def test_weights_alone_are_told_what_to_bring(client: HostClient) -> None:
    rejected = rejection(client, {"weights.pth": saved(network().state_dict())})

    assert (rejected.code, "model.py" in rejected.reason) == ("architecture_needed", True)
