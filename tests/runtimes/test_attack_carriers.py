"""Hostile files of every format: whatever carries the code, nothing of what it tries happens."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from runtimes.client import HostClient, LoadRequest
from runtimes.errors import ArtifactRejected, ModelError, RunnerDied
from runtimes.limits import MIB, Limits
from tests.runtimes import attacks
from tests.runtimes.carriers import CARRIERS, Files
from tests.runtimes.conftest import bundle_of
from tests.runtimes.payloads import SUCCEEDED, Call
from tests.runtimes.world import World, rejected

DEEDS = {
    **{name: attacks.FILES[name] for name in ("read a secret", "append to a file", "write to the bundle")},
    **{name: attacks.SOCKETS[name] for name in ("connect by TCP", "connect to the model host")},
    **{name: attacks.PROCESSES[name] for name in ("fork and stay", "kill the victim", "run a command")},
    "take memory until there is none": attacks.EXHAUSTION["take memory until there is none"],
}
SIGNATURE = {"layout": "tensor", "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 4]}], "outputs": []}


@pytest.mark.parametrize("name", CARRIERS)
def test_every_carrier_does_run_its_code(client: HostClient, world: World, name: str) -> None:
    """Otherwise the tests below would prove nothing."""
    assert f"{SUCCEEDED}: it ran" in rejected(client, world, CARRIERS[name]("result = 'it ran'")).reason


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("name", CARRIERS)
def test_no_carrier_brings_a_deed_about(client: HostClient, world: World, neighbour: Any, name: str, deed: str) -> None:
    files = CARRIERS[name](DEEDS[deed].format(**world.targets(client)))

    rejection = rejected(client, world, files)

    world.assert_untouched()
    assert SUCCEEDED not in rejection.reason


@pytest.fixture
def any_client(client: HostClient) -> HostClient:
    """The one host of these tests, for the fixture `neighbour`."""
    return client


def script(body: str) -> bytes:
    """A TorchScript file whose forward does what the body says."""

    class Attack(torch.nn.Module):
        pass

    module = torch.jit.script(Attack())
    module.define(f"def forward(self, x):\n    {body}\n")
    file = io.BytesIO()
    torch.jit.save(module, file)
    return file.getvalue()


SCRIPTS = {
    "read a file": "return torch.from_file('{secret}', False, 16, dtype=torch.uint8)",
    "map a file to write to it": "return torch.from_file('{canary}', True, 16, dtype=torch.uint8).fill_(88)",
    "make a file": "return torch.from_file('{open_folder}/new', True, 16, dtype=torch.uint8).fill_(88)",
    "take all memory": "return torch.zeros([1 << 20, 1 << 20])",
    "hang": "\n    while True:\n        x = x + 1\n    return x",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_of_torch_does_more_than_compute(client: HostClient, world: World, neighbour: Any, name: str) -> None:
    data = script(SCRIPTS[name].format(**world.targets(client)))
    limits = Limits(memory_bytes=512 * MIB, load_seconds=3.0, cpu_seconds=3)

    rejected(client, world, {"model.pt": data}, signature=SIGNATURE, limits=limits)

    world.assert_untouched()


def graph(*nodes: onnx.NodeProto, dimensions: tuple[int, ...] = (4, 3)) -> bytes:
    """A graph from x to y with one matrix."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    weights = helper.make_tensor("W", TensorProto.FLOAT, (4, 3), np.zeros(12, "float32"))
    weights.dims[:] = dimensions
    made = helper.make_graph(list(nodes), "attack", inputs, outputs, [weights])
    model: bytes = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()
    return model


def with_outside_data(location: str) -> bytes:
    model = onnx.load_model_from_string(graph(helper.make_node("MatMul", ["x", "W"], ["y"])))
    weights = model.graph.initializer[0]
    weights.ClearField("float_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    data: bytes = model.SerializeToString()
    return data


def endless_loop() -> bytes:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Add", ["v", "v"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v2", TensorProto.FLOAT, None),
        ],
    )
    return graph(helper.make_node("Loop", ["", "", "x"], ["y"], body=body))


def with_functions() -> bytes:
    model = onnx.load_model_from_string(graph(helper.make_node("F", ["x"], ["y"], domain="own")))
    inner = [helper.make_node("F", ["a"], ["b"], domain="own")]
    model.functions.append(helper.make_function("own", "F", ["a"], ["b"], inner, [helper.make_opsetid("own", 1)]))
    model.opset_import.append(helper.make_opsetid("own", 1))
    data: bytes = model.SerializeToString()
    return data


GRAPHS = {
    "data from an absolute path": lambda: with_outside_data("/etc/passwd"),
    "data from a path upwards": lambda: with_outside_data("../../../../etc/passwd"),
    "data from the bundle's descriptor": lambda: with_outside_data("/proc/self/fd/4"),
    "a loop without end": endless_loop,
    "functions that call themselves": with_functions,
    "an operator that takes memory": lambda: graph(helper.make_node("Expand", ["x", "W"], ["y"])),
    "a sequence that grows": lambda: graph(helper.make_node("SequenceEmpty", [], ["y"])),
    "another domain": lambda: graph(helper.make_node("PyOp", ["x"], ["y"], domain="ai.onnx.contrib")),
    "a matrix larger than memory": lambda: graph(
        helper.make_node("MatMul", ["x", "W"], ["y"]), dimensions=(1 << 31, 1 << 31)
    ),
    "negative dimensions": lambda: graph(helper.make_node("MatMul", ["x", "W"], ["y"]), dimensions=(-4, -3)),
    "a node that feeds itself": lambda: graph(helper.make_node("Add", ["y", "x"], ["y"])),
    "a matrix that is not there": lambda: graph(helper.make_node("MatMul", ["x", "nothing"], ["y"])),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_no_graph_does_more_than_compute(client: HostClient, world: World, neighbour: Any, name: str) -> None:
    rejected(client, world, {"model.onnx": GRAPHS[name]()})

    world.assert_untouched()


def array_of(shape: tuple[int, ...], kind: str) -> Any:
    return Call(np.ndarray, shape, kind)


TREES = {
    "a number without end": b"\x80\x04\x8b\xff\xff\xff\x7f.",
    "a string that is longer than its file": b"\x80\x04\x8d" + (1 << 40).to_bytes(8, "little") + b"x.",
    "a frame that is longer than its file": b"\x80\x04\x95" + (1 << 60).to_bytes(8, "little") + b".",
    "laughs": b"\x80\x04]q\x00" + b"(h\x00h\x00h\x00h\x00e]q\x00" * 40 + b".",
    "a deep tuple": b"\x80\x04)" + b"\x85" * 1_000_000 + b".",
    "an array larger than memory": pickle.dumps(array_of((1 << 40,), "f8")),
    "an array of objects that are not there": pickle.dumps(array_of((1 << 16,), "O")),
    "a memo that is not there": b"\x80\x04h\xff.",
    "a persistent id": b"\x80\x04\x8c\x01xQ.",
    "an extension code": b"\x80\x04\x82\x01.",
    "a global of nothing": b"c\n\n.",
}


@pytest.mark.parametrize("name", TREES)
def test_no_tree_of_a_pickle_harms_more_than_its_runner(
    client: HostClient, world: World, neighbour: Any, name: str
) -> None:
    rejected(client, world, TREES[name])


def served(client: HostClient, files: Files, key: str, format_name: str) -> Any:
    options = {"signature": SIGNATURE}
    limits = Limits(memory_bytes=512 * MIB, call_seconds=2.0)
    return client.runner(key, lambda: LoadRequest(bundle_of(files), "acme", format_name, options, limits))


@pytest.mark.parametrize("name", ["read a file", "map a file to write to it", "make a file", "take all memory"])
def test_no_script_does_it_when_it_predicts(client: HostClient, world: World, neighbour: Any, name: str) -> None:
    data = script(SCRIPTS[name].format(**world.targets(client)))
    runner = served(client, {"model.pt": data}, f"script to {name}", "torchscript")

    with pytest.raises((ModelError, RunnerDied)) as caught:
        runner.predict(np.zeros((16, 4), "float32"), deadline_s=10)

    world.assert_untouched()
    assert world.secret_text not in str(caught.value)


def test_a_graph_that_inspection_refuses_is_not_loaded_either(client: HostClient, neighbour: Any) -> None:
    with pytest.raises(ArtifactRejected):
        served(client, {"model.onnx": endless_loop()}, "loop", "onnx")
