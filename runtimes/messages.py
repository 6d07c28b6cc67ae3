"""Frames: a msgpack header and a body of bytes over a stream, with nothing but read, write and poll.

Both sides use this module, and neither believes the other: every length is capped before memory is taken for it, and a
header holds plain values only (no msgpack extensions, no binary).
"""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from runtimes.errors import DeadlineExceeded, ProtocolFault

PROTOCOL = 1
HEAD = struct.Struct("<IIQ")  # protocol version, header bytes, body bytes
ALIGNMENT = 16  # the body starts at a multiple, so that arrays over it are aligned
FIRST_READ_BYTES = 1 << 14
GROWTH = 4
WRITE_BYTES = 1 << 20
WRITE_VIEWS = 64
FIRST_ID = 1 << 32  # from here on msgpack writes ids in eight bytes: headers that end with one have one length
ID_COMES, ID = b"\xa2id\xcf", struct.Struct(">Q")  # what precedes such an id, and how it is written
UNPACK_CAPS = {"max_map_len": 1 << 12, "max_str_len": 1 << 18, "max_bin_len": 0, "max_ext_len": 0}


class EndOfStream(Exception):
    """The other side closed the stream."""


@dataclass(frozen=True)
class Caps:
    """The largest frame that a reader takes.

    list_items: of one list in a header, whose memory is taken before its items are read; lists nest up to 1,024 deep.
    containers: lists and maps in a header, all together; an empty one is a byte there, and eighty in memory.
    """

    header_bytes: int = 4 << 20
    body_bytes: int = 64 << 20
    list_items: int = 1 << 17
    containers: int = 1 << 17


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: a map of plain values, and bytes that start at an aligned address."""

    header: dict[str, Any]
    body: memoryview


@dataclass(slots=True)
class RawFrame:
    """One message whose header nobody has read yet."""

    header: bytes
    body: memoryview


def pack_head(header: Mapping[str, Any], body_bytes: int) -> bytes:
    """The bytes that precede a frame's body."""
    packed: bytes = msgpack.packb(header)
    return HEAD.pack(PROTOCOL, len(packed), body_bytes) + packed + bytes(-len(packed) % ALIGNMENT)


def pack_round_id(header: Mapping[str, Any], body_bytes: int) -> tuple[bytes, bytes]:
    """The bytes that precede a frame's body, before and after the id that is its header's last value."""
    head = pack_head({**header, "id": FIRST_ID}, body_bytes)
    place = head.rindex(ID_COMES) + len(ID_COMES)
    return head[:place], head[place + ID.size :]


class _Counter:
    """Counts the lists and maps of a header while they are made."""

    def __init__(self, most: int) -> None:
        self._left = most

    def __call__(self, container: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError("too many lists and maps")
        return container


def unpack_header(data: bytes | memoryview, caps: Caps) -> dict[str, Any]:
    """The map that the header's bytes hold.

    Raises:
        ProtocolFault: they hold anything else.
    """
    count = _Counter(caps.containers)
    given = {"max_array_len": caps.list_items, "list_hook": count, "object_hook": count, **UNPACK_CAPS}
    try:
        header = msgpack.unpackb(data, raw=False, strict_map_key=True, **given)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ProtocolFault("A frame's header is not readable.") from error
    if not isinstance(header, dict):
        raise ProtocolFault("A frame's header is not a map.")
    return header


class FrameReader:
    """Reads frames from a descriptor, a little at a time; bytes of the next frame are kept for it."""

    def __init__(self, fd: int, caps: Caps) -> None:
        self._fd, self.caps = fd, caps
        self._buffer, self._filled = bytearray(FIRST_READ_BYTES), 0

    def read_some(self) -> None:
        """Read once, which blocks only when nothing waits.

        Raises:
            EndOfStream: the other side closed the stream.
        """
        with memoryview(self._buffer) as view, view[self._filled :] as free:
            count = os.readv(self._fd, [free])
        if count == 0:
            raise EndOfStream
        self._filled += count

    def take(self) -> Frame | None:
        """The next whole frame, or None while more bytes are needed.

        Raises:
            ProtocolFault: a length is over its cap, or the header is unreadable.
        """
        raw = self.take_raw()
        return None if raw is None else Frame(unpack_header(raw.header, self.caps), raw.body)

    def take_raw(self) -> RawFrame | None:
        """The next whole frame with its header as it came, or None while more bytes are needed.

        Raises:
            ProtocolFault: a length is over its cap.
        """
        if self._filled < HEAD.size:
            return None
        header_end, start, end = self._measure()
        if self._filled < end:
            if self._filled == len(self._buffer):  # memory is taken for what has come, and not for what is announced
                self._buffer += bytes(min(end, GROWTH * self._filled) - self._filled)
            return None
        view = memoryview(self._detach(end))
        return RawFrame(bytes(view[HEAD.size : header_end]), view[start:end])

    def _detach(self, end: int) -> bytearray:
        """The first bytes of the buffer, writable and the taker's own: copied if they are few, else handed over."""
        if end > FIRST_READ_BYTES:
            rest = self._buffer[end : self._filled]
            whole, self._buffer = self._buffer, rest + bytearray(max(FIRST_READ_BYTES - len(rest), 0))
        else:
            whole = self._buffer[:end]
            if end < self._filled:
                self._buffer[: self._filled - end] = self._buffer[end : self._filled]
        self._filled -= end
        return whole

    def _measure(self) -> tuple[int, int, int]:
        protocol, header_bytes, body_bytes = HEAD.unpack_from(self._buffer)
        if protocol != PROTOCOL:
            raise ProtocolFault("The other side speaks another version of the protocol.")
        if header_bytes > self.caps.header_bytes or body_bytes > self.caps.body_bytes:
            raise ProtocolFault("A frame is larger than it may be.")
        header_end: int = HEAD.size + header_bytes
        start = header_end + -header_bytes % ALIGNMENT
        return header_end, start, start + body_bytes


class Connection:
    """Whole frames over one stream descriptor, each within a deadline of time.monotonic()."""

    def __init__(self, fd: int, caps: Caps | None = None) -> None:
        self.fd = fd
        self.reader = FrameReader(fd, caps or Caps())
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        os.set_blocking(fd, False)

    def send(
        self, header: Mapping[str, Any], buffers: Sequence[memoryview] = (), deadline: float | None = None
    ) -> None:
        """Write one frame.

        Raises:
            EndOfStream: the other side is gone. DeadlineExceeded: it does not read.
        """
        self.write([pack_head(header, sum([view.nbytes for view in buffers])), *buffers], deadline)

    def write(self, parts: list[bytes | memoryview], deadline: float | None = None) -> None:
        """Write the bytes of whole frames, in one system call where the stream takes them all.

        Raises:
            EndOfStream: the other side is gone. DeadlineExceeded: it does not read.
        """
        data = b"".join(parts) if sum(map(len, parts)) <= FIRST_READ_BYTES else None
        try:
            if data is None or (written := os.write(self.fd, data)) < len(data):
                rest = [memoryview(part) for part in parts] if data is None else [memoryview(data)[written:]]
                self._write([view for view in rest if view.nbytes], deadline)
        except BlockingIOError:
            self._write([memoryview(data or b"")], deadline)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise EndOfStream from error

    def receive(self, deadline: float | None = None) -> Frame:
        """The next frame.

        Raises:
            EndOfStream, DeadlineExceeded, ProtocolFault.
        """
        raw = self.receive_raw(deadline)
        return Frame(unpack_header(raw.header, self.reader.caps), raw.body)

    def receive_raw(self, deadline: float | None = None, blocks_s: float = 0.0) -> RawFrame:
        """The next frame with its header as it came; blocks_s: for how long a read of this stream may block.

        Raises:
            EndOfStream, DeadlineExceeded, ProtocolFault.
        """
        while (frame := self.reader.take_raw()) is None:
            try:
                if blocks_s and deadline is not None and time.monotonic() + blocks_s > deadline:
                    self._wait(select.POLLIN, deadline)
                self.reader.read_some()
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
            except ConnectionResetError as error:
                raise EndOfStream from error
        return frame

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _write(self, views: list[memoryview], deadline: float | None) -> None:
        while views:
            try:
                written = os.writev(self.fd, [view[:WRITE_BYTES] for view in views[:WRITE_VIEWS]])
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)
                continue
            while views and written >= views[0].nbytes:
                written -= views.pop(0).nbytes
            if views and written:
                views[0] = views[0][written:]

    def _wait(self, event: int, deadline: float | None) -> None:
        self._poll.modify(self.fd, event)
        left_ms = None if deadline is None else (deadline - time.monotonic()) * 1000
        if (left_ms is not None and left_ms <= 0) or not self._poll.poll(left_ms):
            raise DeadlineExceeded("No answer came in time.")
