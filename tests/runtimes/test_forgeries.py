"""One-shot work that lies about its result: an inspection's findings are a hostile process's word."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes import work
from runtimes.client import HostClient
from runtimes.errors import ArtifactRejected, ModelError, ProtocolFault, RuntimeFault
from runtimes.limits import MIB, Limits
from tests.runtimes.conftest import bundle_of
from tests.runtimes.payloads import running

LIMITS = Limits(memory_bytes=512 * MIB, load_seconds=2.0, cpu_seconds=4)
FORGE = """
import msgpack, time
os.set_blocking(5, True)
def forge(header, body=b"", claimed=None):
    packed = msgpack.packb(header)
    head = struct.pack("<IIQ", 1, len(packed), len(body) if claimed is None else claimed)
    os.write(5, head + packed + bytes(-len(packed) % 16) + body)
field = {"name": "x", "dtype": "float64", "shape": [-1, 4]}
signature = {"layout": "tensor", "inputs": [field], "outputs": []}
good = {"format": "sklearn", "task": "other", "signature": signature, "made_with": {}, "type_name": "Forged"}
good |= {"warnings": [], "load_seconds": 0.1}
"""
END = "\ntime.sleep(60)"

# what the client must not take for findings
LIES = {
    "no findings": "forge({'result': {}})",
    "findings that are no map": "forge({'result': [1]})",
    "a task that there is not": "forge({'result': good | {'task': 'mining'}})",
    "a signature that is none": "forge({'result': good | {'signature': 7}})",
    "inputs without end": "forge({'result': good | {'signature': signature | {'inputs': [field] * 20_000}}})",
    "an input of no known dtype": "field['dtype'] = 'O'; forge({'result': good})",
    "an input of a strange shape": "field['shape'] = [-1, 'x']; forge({'result': good})",
    "classes that are no values": "forge({'result': good | {'signature': signature | {'classes': [[]]}}})",
    "a time that is no number": "forge({'result': good | {'load_seconds': 'soon'}})",
    "a time that is not a number": "forge({'result': good | {'load_seconds': float('nan')}})",
    "a time without end": "forge({'result': good | {'load_seconds': float('inf')}})",
    "a time before its beginning": "forge({'result': good | {'load_seconds': -1.0}})",
    "warnings that are no list": "forge({'result': good | {'warnings': 7}})",
    "versions that are no map": "forge({'result': good | {'made_with': [1]}})",
    "versions that are no map, on the way": "forge({'stage': 'x', 'made_with': [1]})",
    "a need of a set that is not there": "forge({'result': {'needs': '../../etc'}})",
    "a fault that is no map": "forge({'fault': 7})",
    "a fault of the host": "forge({'fault': {'kind': 'HostUnavailable', 'code': 'x', 'message': 'x'}})",
    "a fault of the machine": "forge({'fault': {'kind': 'ConfinementUnavailable', 'message': 'x'}})",
    "a fault of nobody": "forge({'fault': {'kind': 'Nonsense'}})",
    "bytes that are no frame": "os.write(5, b'\\xff' * 4096)",
    "a frame of a terabyte": "forge({'stage': 'x'}, claimed=1 << 40)",
    "another version of the protocol": "os.write(5, struct.pack('<IIQ', 99, 0, 0))",
    "a header that is no map": "forge([1])",
    "a header that is deep": "os.write(5, struct.pack('<IIQ', 1, 4000, 0) + b'\\x91' * 4000)",
    "an end in mid-frame": "os.write(5, struct.pack('<IIQ', 1, 400, 0)); os._exit(0)",
    "an end of the channel": "os.close(5)",
    "stages without end": "while True: forge({'stage': 'x'})",
    "a drip": "os.write(5, struct.pack('<IIQ', 1, 60000, 0))\nwhile True: os.write(5, b'x'); time.sleep(0.05)",
    "nothing": "",
}


@pytest.fixture
def any_client(client: HostClient) -> HostClient:
    """The one host of these tests, for the fixture `neighbour`."""
    return client


def inspect(client: HostClient, code: str) -> Any:
    fd = bundle_of(running(FORGE + code + END))
    try:
        return client.inspect(fd, tenant="acme", metadata={}, limits=LIMITS)
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", LIES)
def test_a_forged_finding_is_a_named_error(client: HostClient, neighbour: Any, name: str) -> None:
    with pytest.raises((ArtifactRejected, ProtocolFault, ModelError)) as caught:
        inspect(client, LIES[name])

    assert type(caught.value) in (ArtifactRejected, ProtocolFault, ModelError)
    assert len(caught.value.message) <= 500


def test_a_well_forged_finding_harms_its_author_alone(client: HostClient, neighbour: Any) -> None:
    """What it says of itself is bounded plain text; the host's own measure of it stays the host's."""
    code = "good |= {'format': 'x' * 9999, 'type_name': '<script>\\0\\x1b[2J', 'warnings': ['w' * 9999] * 99}\n"
    found = inspect(client, code + "forge({'result': good | {'libraries': {'scikit-learn': '0'}, 'memory_bytes': -1}})")

    assert len(found.format) <= 40
    assert found.type_name == "<script>??[2J"
    assert len(found.warnings) <= 20
    assert all(len(warning) <= 500 for warning in found.warnings)
    assert found.memory_bytes > 0
    assert found.libraries["scikit-learn"] != "0"


def test_a_forged_origin_gives_no_advice_but_by_a_version(client: HostClient, neighbour: Any) -> None:
    code = "forge({'stage': 'x', 'made_with': {'scikit-learn': '1.2 <b>or else</b>'}})\nraise ValueError('no')"
    with pytest.raises(ArtifactRejected) as caught:
        inspect(client, code)

    assert "<b>" not in caught.value.reason


def test_its_processor_time_is_bounded_whatever_signals_it_ignores(client: HostClient, neighbour: Any) -> None:
    code = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    fd = bundle_of(running(code))
    try:
        with pytest.raises(ArtifactRejected) as caught:
            client.inspect(fd, tenant="acme", metadata={}, limits=Limits(cpu_seconds=1, load_seconds=30.0))
    finally:
        os.close(fd)

    assert caught.value.code in ("load_timeout", "load_memory")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
GOOD: Mapping[str, Any] = {
    "format": "sklearn",
    "task": "other",
    "signature": {"layout": "tensor", "inputs": [{"name": "x", "dtype": "float64", "shape": [-1]}], "outputs": []},
    "made_with": {},
    "type_name": "Model",
    "warnings": [],
    "load_seconds": 0.5,
}
USAGE = {"libraries": {"scikit-learn": "1.9.1"}, "library_sets": {}, "peak_bytes": 1}


@given(st.sampled_from(sorted(GOOD)), VALUES)
def test_any_value_in_a_finding_is_taken_as_it_must_be_or_a_fault(name: str, value: Any) -> None:
    try:
        found = work._inspection({**GOOD, name: value}, USAGE)
    except RuntimeFault:
        return
    assert math.isfinite(found.load_seconds)
    assert found.load_seconds >= 0
    assert all(len(text) <= 500 for text in found.warnings)
