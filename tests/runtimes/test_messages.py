"""Frames between processes that do not trust each other."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.errors import DeadlineExceeded, ProtocolFault
from runtimes.messages import HEAD, PROTOCOL, Caps, Connection, EndOfStream, pack_head

SMALL = Caps(header_bytes=4096, body_bytes=4096)
SECONDS = 0.2


class Pair:
    """A connection and the raw other end of it."""

    def __init__(self) -> None:
        ours, self.raw = socket.socketpair()
        self.connection = Connection(ours.detach(), SMALL)

    def close(self) -> None:
        self.connection.close()
        self.raw.close()

    def receive(self) -> object:
        return self.connection.receive(time.monotonic() + SECONDS)


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


def test_a_frame_arrives_whole_whatever_pieces_it_comes_in(pair: Pair) -> None:
    data = pack_head({"id": 7}, 5) + b"hello"
    for byte in data:
        pair.raw.send(bytes([byte]))

    frame = pair.connection.receive(time.monotonic() + 1)

    assert frame.header == {"id": 7}
    assert bytes(frame.body) == b"hello"


def test_frames_sent_together_are_received_one_by_one(pair: Pair) -> None:
    pair.raw.send(pack_head({"id": 1}, 0) + pack_head({"id": 2}, 1) + b"x")

    headers = [pair.connection.receive(time.monotonic() + 1).header for _ in range(2)]

    assert headers == [{"id": 1}, {"id": 2}]


def test_a_large_body_goes_through(pair: Pair) -> None:
    other = Connection(os.dup(pair.raw.fileno()), Caps(body_bytes=1 << 20))
    pair.connection.send({"id": 1}, [memoryview(bytes(100_000))], time.monotonic() + 1)

    assert other.receive(time.monotonic() + 1).body.nbytes == 100_000
    other.close()


def test_an_oversize_frame_is_refused_before_its_bytes_come(pair: Pair) -> None:
    pair.raw.send(HEAD.pack(PROTOCOL, 8, 1 << 40))

    with pytest.raises(ProtocolFault):
        pair.receive()


def test_another_protocol_version_is_refused(pair: Pair) -> None:
    pair.raw.send(HEAD.pack(PROTOCOL + 1, 0, 0))

    with pytest.raises(ProtocolFault):
        pair.receive()


def test_a_slow_drip_does_not_extend_the_deadline(pair: Pair) -> None:
    pair.raw.send(pack_head({"id": 1}, 100)[:10])
    started = time.monotonic()

    with pytest.raises(DeadlineExceeded):
        pair.receive()

    assert time.monotonic() - started < 2 * SECONDS


def test_a_peer_that_does_not_read_ends_a_send(pair: Pair) -> None:
    with pytest.raises(DeadlineExceeded):
        pair.connection.send({}, [memoryview(bytes(64 << 20))], time.monotonic() + SECONDS)


def test_a_closed_peer_is_the_end_of_the_stream(pair: Pair) -> None:
    pair.raw.close()

    with pytest.raises(EndOfStream):
        pair.receive()


def receive_all(pair: Pair) -> None:
    while True:
        pair.receive()


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_a_named_error(data: bytes) -> None:
    pair = Pair()
    pair.raw.send(data)
    pair.raw.shutdown(socket.SHUT_WR)

    with pytest.raises((ProtocolFault, EndOfStream)):
        receive_all(pair)
    pair.close()


@given(st.binary(max_size=200))
def test_any_header_bytes_are_a_map_or_a_protocol_fault(header: bytes) -> None:
    pair = Pair()
    pair.raw.send(HEAD.pack(PROTOCOL, len(header), 0) + header + bytes(-len(header) % 16))

    try:
        frame = pair.connection.receive(time.monotonic() + SECONDS)
        assert isinstance(frame.header, dict)
    except ProtocolFault:
        pass
    pair.close()
