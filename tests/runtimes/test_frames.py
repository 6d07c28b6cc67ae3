"""Frames that are cut, changed or made up: either side ends in a named error, and the host lives on."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes import arrays
from runtimes.asking import caps_of, plan_reply
from runtimes.children import CONTROL_CAPS
from runtimes.client import HostClient
from runtimes.errors import ProtocolFault
from runtimes.limits import Limits
from runtimes.messages import Caps, Connection, EndOfStream, FrameReader, pack_head, unpack_header
from runtimes.protocol import Prediction
from runtimes.replies import encode_prediction

ROWS = 5
CAPS, REPLY_CAPS = Caps(), caps_of(Limits())
OUTPUTS = {"label": np.array(["yes", None, "no", "", "né"], dtype=object), "score": np.arange(10.0).reshape(ROWS, 2)}
REQUESTS: tuple[dict[str, Any], ...] = (
    {"op": "stats"},
    {"op": "find", "key": "a"},
    {"op": "lease", "key": "fuzzed", "lost": 0, "wait_s": 0.1},
    {"op": "inspect", "options": {}, "limits": {"load_seconds": 1.0}},
    {"op": "fault", "key": "a", "generation": 1, "is_protocol_fault": True, "waited_seconds": 1.0},
    {"op": "report", "used": [["a", 1, 1, 0, 0.1, 0.0]]},
    {"op": "check", "library_set": "nobody"},
    {"op": "pin", "key": "fuzzed", "pinned": False},
)
ANSWER_SECONDS = 10.0
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module", autouse=True)
def _warm(client: HostClient) -> None:
    """A host whose first zygote has started: the requests below wait for nothing else."""
    client.check()


def frame_of(header: dict[str, Any]) -> bytes:
    return b"\0" + pack_head(header, 0)


@st.composite
def spoiled(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with a few changed, and perhaps cut."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        changed[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(changed[: draw(st.integers(0, len(data)) | st.just(len(data)))])


def assert_ends(client: HostClient, data: bytes) -> None:
    """What is sent to the host gets an answer or an end, soon, and the host answers others."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(str(client._path))
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + ANSWER_SECONDS
        while select.select([sock], [], [], max(deadline - time.monotonic(), 0))[0]:
            try:
                if not sock.recv(1 << 16):
                    break
            except ConnectionResetError:
                break
        else:
            pytest.fail("the host neither answered nor went away")


@given(st.data())
def test_the_host_ends_any_conversation_of_spoiled_requests(client: HostClient, data: st.DataObject) -> None:
    request = data.draw(st.sampled_from(REQUESTS))
    assert_ends(client, data.draw(spoiled(frame_of(request))))
    assert client.stats().memory_bytes > 0


@given(st.sampled_from(REQUESTS), st.data())
def test_the_host_ends_any_conversation_of_requests_with_strange_values(
    client: HostClient, request_: dict[str, Any], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(request_)))
    try:
        changed = frame_of({**request_, name: data.draw(VALUES)})
    except (ValueError, OverflowError):
        return
    assert_ends(client, changed)
    assert client.stats().memory_bytes > 0


@given(st.binary(max_size=400))
def test_the_host_ends_any_conversation_of_any_bytes(client: HostClient, data: bytes) -> None:
    assert_ends(client, data)
    assert client.stats().memory_bytes > 0


def reply() -> tuple[dict[str, Any], bytes]:
    """The header and the body of a good reply."""
    header, buffers = encode_prediction(Prediction(OUTPUTS, np.full((ROWS, 3), 0.5)))
    return {"id": 1 << 32, "ok": True, **header}, b"".join(bytes(buffer) for buffer in buffers)


def taken(header: object, body: bytes) -> Prediction:
    assert isinstance(header, dict)
    return plan_reply(header, len(body), ROWS, probabilities=True).take(memoryview(body))


def test_the_good_reply_is_taken() -> None:
    prediction = taken(*reply())
    assert prediction.outputs["label"].tolist() == OUTPUTS["label"].tolist()


@given(st.data())
def test_a_spoiled_reply_is_a_prediction_of_as_many_rows_or_a_fault(data: st.DataObject) -> None:
    header, body = reply()
    whole = data.draw(spoiled(pack_head(header, len(body)) + body))
    reading, writing = os.pipe()
    try:
        os.write(writing, whole)
        os.close(writing)
        reader = FrameReader(reading, Caps(1 << 16, 1 << 16))
        while (frame := reader.take()) is None:
            reader.read_some()
        prediction = taken(frame.header, bytes(frame.body))
    except (ProtocolFault, EndOfStream):
        return
    finally:
        os.close(reading)
    assert all(len(values) == ROWS for values in prediction.outputs.values())


ENTRIES = st.tuples(
    st.text(max_size=4) | VALUES,
    st.sampled_from([*sorted(arrays.DTYPES), "string", "object", "O", "<U9", ""]) | VALUES,
    st.lists(st.integers(-2, 2**33) | st.sampled_from([0, 1, ROWS, 2**31 - 1]), max_size=9) | VALUES,
    st.integers(-1, 300) | VALUES,
)


@given(st.lists(ENTRIES.map(list), max_size=3) | VALUES, st.binary(max_size=300))
def test_any_entries_over_any_bytes_are_arrays_of_as_many_rows_or_a_fault(entries: Any, body: bytes) -> None:
    try:
        found, _ = arrays.decode(entries, memoryview(body), rows=ROWS)
    except ProtocolFault:
        return
    assert all(array.shape[0] == ROWS for array in found.values())
    assert all(len(repr(array.tolist())) < 1 << 20 for array in found.values())


@given(st.integers(1, 3_000), st.sampled_from([b"\x91", b"\x81\xa1k", b"\x93\x90\x90"]))
def test_nesting_of_any_depth_is_a_map_or_a_fault(depth: int, opening: bytes) -> None:
    with suppress(ProtocolFault):
        assert isinstance(unpack_header(memoryview(opening * depth + b"\xc0"), CAPS), dict)


def test_a_claim_of_more_than_there_is_takes_no_memory(client: HostClient) -> None:
    for size in (1 << 22, (1 << 32) - 1):
        assert_ends(client, b"\0" + struct.pack("<IIQ", 1, size, 0) + b"\x81")
    for opening in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"):
        with pytest.raises(ProtocolFault):
            unpack_header(memoryview(opening + msgpack.packb(1)), CAPS)


@pytest.mark.parametrize(
    ("data", "caps"),
    {
        "lists that claim to be long, each in another": (b"\xdd\x00\x01\xff\xff" * 1_000, REPLY_CAPS),
        "long lists in each other": (b"\xdd\x00\x00\x01\x00" * 1_000, REPLY_CAPS),
        "a long list of empty lists": (b"\xdd\x00\x01\xff\xff" + b"\x90" * (1 << 17), REPLY_CAPS),
        "lists of empty lists": (b"\xdc\x01\x00" + (b"\xdc\x01\x00" + b"\x90" * 256) * 256, REPLY_CAPS),
        "lists of empty maps": (b"\xdc\x01\x00" + (b"\xdc\x01\x00" + b"\x80" * 256) * 256, REPLY_CAPS),
        "what a runner tells its host": (b"\xdd\x00\x01\xff\xff" * 1_000, CONTROL_CAPS),
        "four million empty lists": (b"\xdc\x00\x1e" + (b"\xdd\x00\x01\xff\xff" + b"\x90" * 131_071) * 30, CAPS),
    }.values(),
)
def test_a_header_of_lists_takes_little_memory(data: bytes, caps: Caps) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolFault):
            unpack_header(data, caps)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_an_announced_frame_takes_no_memory_before_it_comes() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = FrameReader(ours.fileno(), CAPS)
        theirs.sendall(pack_head({"ok": True}, CAPS.body_bytes) + bytes(20_000))
        tracemalloc.start()
        try:
            while select.select([ours], [], [], 0)[0]:
                reader.read_some()
                assert reader.take() is None
            assert tracemalloc.get_traced_memory()[1] < 1 << 18
        finally:
            tracemalloc.stop()


@given(st.lists(st.integers(0, 300_000), min_size=1, max_size=5))
def test_frames_of_any_sizes_come_out_as_they_went_in(sizes: list[int]) -> None:
    bodies = [bytes([number]) * size for number, size in enumerate(sizes)]
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as sender:
        sent = b"".join(pack_head({"number": number}, len(body)) + body for number, body in enumerate(bodies))
        done = sender.submit(theirs.sendall, sent)
        connection = Connection(ours.fileno(), CAPS)
        for number, body in enumerate(bodies):
            frame = connection.receive(time.monotonic() + 10)
            assert (frame.header, bytes(frame.body)) == ({"number": number}, body)
        done.result()
