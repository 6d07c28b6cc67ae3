"""torch.export's files: inputs named by the program, any number of rows, and answers equal to the network's own."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from runtimes.client import HostClient
from tests.runtimes.bundles import inspected, rejection, served

torch = pytest.importorskip("torch")
nn = torch.nn

ROWS = np.random.default_rng(5).normal(size=(6, 4)).astype("float32")
FREE = {0: torch.export.Dim("rows")}


class Pair(nn.Module):  # type: ignore[misc, name-defined]
    """Two inputs, two named outputs."""

    def forward(self, left: Any, right: Any) -> dict[str, Any]:
        return {"total": left.sum(dim=1) + right, "product": left.prod(dim=1) * right}


def exported(network: Any, *example: Any, free: Any = None) -> dict[str, bytes]:
    program = torch.export.export(network.eval(), example, dynamic_shapes=free)
    file = io.BytesIO()
    torch.export.save(program, file)
    return {"model.pt2": file.getvalue()}


def network() -> Any:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def test_a_program_predicts_as_its_network_does(client: HostClient) -> None:
    files = exported(network(), torch.zeros(2, 4), free=(FREE,))
    found = inspected(client, files, labels=["a", "b", "c"])

    prediction = served(client, files, ROWS, found, probabilities=True)

    scores = torch.softmax(network()(torch.from_numpy(ROWS)), dim=1).detach().numpy()
    assert (found.format, found.task, found.type_name) == ("torch_export", "classification", "ExportedProgram")
    assert found.made_with["torch"] == torch.__version__.partition("+")[0]
    assert found.signature.inputs[0].shape == (-1, 4)
    np.testing.assert_allclose(prediction.probabilities, scores, atol=1e-6)  # type: ignore[arg-type]
    assert served(client, files, ROWS[:1], found).outputs["prediction"].shape == (1,)


def test_a_program_for_one_row_is_asked_row_by_row(client: HostClient) -> None:
    files = exported(network(), torch.zeros(1, 4))
    found = inspected(client, files)

    expected = network()(torch.from_numpy(ROWS)).detach().numpy()
    np.testing.assert_allclose(served(client, files, ROWS, found).outputs["output"], expected, atol=1e-6)


def test_a_program_for_another_fixed_number_of_rows_is_refused(client: HostClient) -> None:
    rejected = rejection(client, exported(network(), torch.zeros(5, 4)))

    assert (rejected.code, "dynamic_shapes" in rejected.reason) == ("fixed_rows", True)


def test_several_inputs_and_outputs_keep_their_names(client: HostClient) -> None:
    files = exported(Pair(), torch.zeros(2, 4), torch.zeros(2), free=({0: FREE[0]}, {0: FREE[0]}))
    found = inspected(client, files)
    right = np.arange(6, dtype="float32")

    outputs = served(client, files, {"left": ROWS, "right": right}, found).outputs

    assert [field.name for field in found.signature.inputs] == ["left", "right"]
    np.testing.assert_allclose(outputs["total"], ROWS.sum(axis=1) + right, atol=1e-5)
    np.testing.assert_allclose(outputs["product"], ROWS.prod(axis=1) * right, atol=1e-5)


def test_a_cut_file_is_a_named_error(client: HostClient) -> None:
    data = exported(network(), torch.zeros(2, 4), free=(FREE,))["model.pt2"]
    for place in (10, len(data) // 2, len(data) - 30):
        rejection(client, {"model.pt2": data[:place]})
