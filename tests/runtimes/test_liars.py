"""Models that answer what they must not, or nothing; the client believes none of it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from runtimes.client import HostClient, Runner
from runtimes.errors import DeadlineExceeded, ModelError, ProtocolFault, RunnerDied
from runtimes.limits import MIB, Limits
from tests.runtimes import hosts
from tests.runtimes.conftest import Load
from tests.runtimes.payloads import predicting

ROWS = np.zeros((3, 2))
SIGNATURE = {"layout": "tensor", "inputs": [{"name": "x", "dtype": "float64", "shape": [-1, 2]}], "outputs": []}
LIMITS = Limits(memory_bytes=512 * MIB, call_seconds=1.0, reply_bytes=MIB)

# what a model's code sees of its runner: client connections are the descriptors above the ones it was born with
FORGE = """
import msgpack, struct, stat, time
first = 1 << 32  # the id of a connection's first request
def forge(header, body=b"", claimed=None):
    packed = msgpack.packb(header)
    head = struct.pack("<IIQ", 1, len(packed), len(body) if claimed is None else claimed)
    data = head + packed + bytes(-len(packed) % 16) + body
    for fd in range(6, 20):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, data)
        except OSError:
            pass
def drip(fd):
    try:
        os.write(fd, b"\\1")
    except OSError:
        pass
"""


def claim(*entry: object, body: str = "bytes(32)") -> str:
    """Code that answers the first request with one output, described as given."""
    return f'forge({{"id": first, "ok": True, "outputs": [{list(entry)!r}]}}, {body})'


LIES = {
    "a frame of a terabyte": 'forge({"id": first, "ok": True}, claimed=1 << 40)',
    "a frame over the reply cap": 'forge({"id": first, "ok": True}, claimed=2 << 20)',
    "another question's id": claim("prediction", "int64", [3], 24).replace('"id": first', '"id": 999'),
    "no id": claim("prediction", "int64", [3], 24).replace('"id": first, ', ""),
    "a row too few": claim("prediction", "int64", [2], 16),
    "a row too many": claim("prediction", "int64", [4], 32),
    "an object dtype": claim("prediction", "O", [3], 24),
    "a wide string dtype": claim("prediction", "<U99999999", [3], 24),
    "fewer bytes than its shape": claim("prediction", "int64", [3, 9], 24),
    "more bytes than its frame": claim("prediction", "int64", [3], 2400),
    "strings that lie about their lengths": claim("prediction", "string", [3], 16, body='b"\\xff\\x7f" * 8'),
    "no outputs": 'forge({"id": first, "ok": True, "outputs": []})',
    "outputs that are no list": 'forge({"id": first, "ok": True, "outputs": 5})',
    "an error of another kind": 'forge({"id": first, "ok": False, "fault": {"kind": "HostUnavailable"}})',
    "an error that is no map": 'forge({"id": first, "ok": False, "fault": 5})',
    "a header that is no map": "forge([1, 2])",
    "a header of garbage": "[os.write(fd, b'\\xc1' * 64) for fd in range(6, 7)]",
    "a header with an extension type": 'forge({"id": msgpack.ExtType(5, b"x"), "ok": True})',
    "an id that is no number": claim("prediction", "int64", [3], 24).replace('"id": first', '"id": float("nan")'),
    "an id that is text": claim("prediction", "int64", [3], 24).replace('"id": first', '"id": str(first)'),
    "the next question's id": claim("prediction", "int64", [3], 24).replace('"id": first', '"id": first + 1'),
    "an answer that is neither good nor bad": 'forge({"id": first, "ok": "yes", "outputs": []})',
    "a good answer that is a number": 'forge({"id": first, "ok": 1, "outputs": []})',
    "a negative size": claim("prediction", "int64", [3], -24),
    "a negative shape": claim("prediction", "int64", [3, -1], 24),
    "a shape of fractions": claim("prediction", "int64", [3.0], 24),
    "a shape of truth": claim("prediction", "bool", [3, True], 3),
    "a shape that is no list": claim("prediction", "int64", "3", 24),
    "a shape without rows": claim("prediction", "int64", [], 8),
    "a shape of many dimensions": claim("prediction", "int64", [3] + [1] * 60, 24),
    "a shape that overflows": claim("prediction", "int64", [3, 0, *[2**31 - 1] * 5], 0, body="b''"),
    "a shape of nothing that overflows": claim("prediction", "float64", [3, *[2**31 - 1] * 7, 0], 0, body="b''"),
    "rows of nothing without end": claim("prediction", "int8", [3, 2**31 - 1, 0], 0, body="b''"),
    "a size that is a fraction": claim("prediction", "int64", [3], 24.0),
    "a size beyond every number": claim("prediction", "int64", [3], 2**63),
    "strings without end": claim("prediction", "string", [3, 2**30], 32),
    "a complex dtype": claim("prediction", "complex128", [3], 48, body="bytes(48)"),
    "a dtype of dates": claim("prediction", "datetime64[ns]", [3], 24),
    "a dtype that is a list": claim("prediction", ["int64"], [3], 24),
    "a name that is a number": claim(7, "int64", [3], 24),
    "a name without end": claim("x" * 100_000, "int64", [3], 24),
    "an output that is short": 'forge({"id": first, "ok": True, "outputs": [["prediction"]]}, bytes(32))',
    "an output that is a map": 'forge({"id": first, "ok": True, "outputs": [{"name": "prediction"}]}, bytes(32))',
    "outputs that are a map": 'forge({"id": first, "ok": True, "outputs": {"prediction": 1}}, bytes(32))',
    "two outputs of one name": 'forge({"id": first, "ok": True, "outputs": [["a", "int8", [3], 3]] * 2}, bytes(32))',
    "a thousand outputs": 'forge({"id": first, "ok": True, "outputs": [[str(n), "bool", [3], 3] for n in range(999)]}, '
    "bytes(16000))",
    "a header that is deep": "os.write(6, struct.pack('<IIQ', 1, 4000, 0) + b'\\x91' * 4000)",
    "a header of empty lists": "forge({'id': [[]] * 100_000})",
    "a header with a key that is no text": "forge({7: 1, 'id': first})",
    "another version of the protocol": "os.write(6, struct.pack('<IIQ', 99, 0, 0))",
    "an error without a text": 'forge({"id": first, "ok": False})',
    "an error that it may not claim": 'forge({"id": first, "ok": False, "fault": {"kind": "ConfinementUnavailable"}})',
    "a rejection": 'forge({"id": first, "ok": False, "fault": {"kind": "ArtifactRejected", "code": "x"}})',
}


@pytest.fixture
def neighbour(client: HostClient, classifier: Any, load_request: Load) -> Any:
    runner = client.runner("neighbour", load_request(classifier, tenant="globex"))
    yield runner
    assert runner.predict(np.zeros((1, 4)), deadline_s=10).outputs["prediction"].tolist() == [0]


def hostile(client: HostClient, load_request: Load, code: str, key: str, limits: Limits = LIMITS) -> Runner:
    return client.runner(key, load_request(predicting(code), signature=SIGNATURE, limits=limits))


def is_gone(client: HostClient, key: str) -> bool:
    return hosts.eventually(lambda: not client.resident(key))


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_a_protocol_fault_and_ends_the_runner(
    client: HostClient, neighbour: Runner, load_request: Load, lie: str
) -> None:
    runner = hostile(client, load_request, FORGE + LIES[lie] + "\ntime.sleep(60)", lie)

    with pytest.raises(ProtocolFault):
        runner.predict(ROWS, deadline_s=10)

    assert is_gone(client, lie)


@pytest.mark.parametrize(
    ("name", "code"),
    {
        "a hung model": "while True: pass",
        "a header that is not all there": FORGE
        + "os.write(6, struct.pack('<IIQ', 1, 100, 0)); os.close(6); time.sleep(60)",
        "a connection that is closed": "import time; os.close(6); time.sleep(60)",
        "a drip of one byte": FORGE + "while True: [drip(fd) for fd in range(6, 9)]; time.sleep(0.3)",
        "a sleeping model": "import time; time.sleep(600)",
        "a slow drip": FORGE + "forge({'id': first, 'ok': True}, claimed=1000)\nwhile True: forge({}); time.sleep(0.1)",
    }.items(),
)
def test_a_model_that_does_not_answer_is_ended(
    client: HostClient, neighbour: Runner, load_request: Load, name: str, code: str
) -> None:
    runner = hostile(client, load_request, code, name)
    started = time.monotonic()

    with pytest.raises((DeadlineExceeded, ProtocolFault, RunnerDied)):
        runner.predict(ROWS, deadline_s=0.6)

    assert time.monotonic() - started < 2
    assert is_gone(client, name)


def test_a_slow_model_within_its_time_is_not_ended(client: HostClient, load_request: Load) -> None:
    limits = Limits(call_seconds=30.0)
    code = "import time; time.sleep(0.5); return [1] * len(rows)"
    runner = hostile(client, load_request, code, "slow", limits)

    with pytest.raises(DeadlineExceeded):
        runner.predict(ROWS, deadline_s=0.1)

    assert runner.predict(ROWS, deadline_s=10).outputs["prediction"].tolist() == [1, 1, 1]


def test_a_model_that_raises_fails_its_request_alone(client: HostClient, load_request: Load) -> None:
    code = "if rows[0, 0] > 0: raise ValueError('too hot')\nreturn [1] * len(rows)"
    runner = hostile(client, load_request, code, "raises")

    with pytest.raises(ModelError, match="too hot"):
        runner.predict(ROWS + 1, deadline_s=10)

    assert runner.predict(ROWS, deadline_s=10).outputs["prediction"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("code", ["os._exit(0)", "os.abort()", "os.execv('/bin/sh', ['sh'])", "ctypes.string_at(1)"])
def test_a_model_that_kills_its_runner_is_told_after_one_more_try(
    client: HostClient, neighbour: Runner, load_request: Load, code: str
) -> None:
    runner = hostile(client, load_request, code, f"dies by {code}")

    with pytest.raises(RunnerDied):
        runner.predict(ROWS, deadline_s=10)


def test_a_model_that_closes_its_listener_is_loaded_anew(
    client: HostClient, neighbour: Runner, load_request: Load
) -> None:
    runner = hostile(client, load_request, "import time; os.close(5); os.close(6); time.sleep(60)", "closes")
    first = generation_of(client, "closes")

    with pytest.raises((RunnerDied, DeadlineExceeded)):
        runner.predict(ROWS, deadline_s=5)

    assert generation_of(client, "closes") != first


def generation_of(client: HostClient, key: str) -> object:
    return next((runner["generation"] for runner in client.stats().runners if runner["key"] == key), None)


def test_memory_taken_in_a_prediction_is_the_models_error(
    client: HostClient, neighbour: Runner, load_request: Load
) -> None:
    runner = hostile(client, load_request, "return bytearray(1 << 40)", "takes memory")

    with pytest.raises(ModelError, match="MemoryError"):
        runner.predict(ROWS, deadline_s=10)


def test_a_model_cannot_reach_another_runner(client: HostClient, neighbour: Runner, load_request: Load) -> None:
    path = client._directory.ways["neighbour"][0].path
    code = f"s = socket.socket(socket.AF_UNIX); s.connect({path!r})\nreturn [1] * len(rows)"
    runner = hostile(client, load_request, code, "curious")

    with pytest.raises(ModelError, match="PermissionError"):
        runner.predict(ROWS, deadline_s=10)


def test_a_runner_that_works_while_nobody_asks_is_ended(client: HostClient, load_request: Load) -> None:
    code = "import threading\ndef mine():\n    while True: pass\nthreading.Thread(target=mine, daemon=True).start()\n"
    runner = hostile(client, load_request, code + "return [1] * len(rows)", "miner")
    runner.predict(ROWS, deadline_s=10)
    kills = client.stats().kills

    assert hosts.eventually(lambda: not client.resident("miner"), seconds=20)
    assert hosts.eventually(lambda: client.stats().kills == kills + 1)


def test_an_unknown_type_of_output_becomes_text(client: HostClient, load_request: Load) -> None:
    runner = hostile(client, load_request, "return [object() for _ in rows]", "odd")

    values = runner.predict(ROWS, deadline_s=10).outputs["prediction"]

    assert all(isinstance(value, str) for value in values)
