"""A client's conversation with the model host, one request and one answer at a time."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from runtimes import addresses
from runtimes.errors import DeadlineExceeded, HostUnavailable, ProtocolFault, from_message
from runtimes.messages import Caps, Connection, EndOfStream

HOST_CAPS = Caps(header_bytes=16 << 20, body_bytes=0)
CONNECT_SECONDS = 5.0


class HostConversation:
    """One connection to the model host."""

    def __init__(self, path: os.PathLike[str], timeout_s: float = CONNECT_SECONDS) -> None:
        try:
            self._sock = addresses.connect(addresses.path_of(os.fspath(path)), timeout_s)
        except OSError as error:
            raise HostUnavailable("The model host does not answer; it may be starting.") from error
        self._connection = Connection(self._sock.fileno(), HOST_CAPS)

    def __enter__(self) -> HostConversation:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._sock.close()

    def ask(self, request: Mapping[str, Any], fds: Sequence[int] = (), timeout_s: float = 30.0) -> dict[str, Any]:
        """Send a request and wait for its answer; raises the fault that it names."""
        self.tell(request, fds)
        return self.answer(timeout_s)

    def tell(self, request: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a request without waiting for its answer."""
        try:
            socket.send_fds(self._sock, [b"\0"], list(fds))
            self._connection.send(request, deadline=time.monotonic() + CONNECT_SECONDS)
        except (OSError, EndOfStream, DeadlineExceeded) as error:
            raise HostUnavailable("The model host went away.") from error
        except (ValueError, TypeError, OverflowError) as error:
            raise ProtocolFault("The request holds a value that cannot be sent.") from error

    def finish(self) -> None:
        """Say that nothing more will come; one-shot work ends on it."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise HostUnavailable("The model host went away.") from error

    def answer(self, timeout_s: float) -> dict[str, Any]:
        """The answer to the request that was sent."""
        try:
            answer = self._connection.receive(time.monotonic() + timeout_s).header
        except (EndOfStream, DeadlineExceeded, OSError) as error:
            raise HostUnavailable("The model host went away before it answered.") from error
        if answer.get("ok") is not True:
            raise from_message(answer.get("fault") or {})
        return answer

    def fileno(self) -> int:
        """The descriptor, for waiting until an answer or an end arrives."""
        return self._sock.fileno()


def left(deadline: float | None, longest_s: float) -> float:
    """The seconds until the deadline of time.monotonic(), at most so many; without a deadline, so many.

    Raises:
        DeadlineExceeded: it has passed.
    """
    seconds = longest_s if deadline is None else min(deadline - time.monotonic(), longest_s)
    if seconds <= 0:
        raise DeadlineExceeded("The deadline passed before the model was there.")
    return seconds


@contextmanager
def within(deadline: float | None) -> Iterator[None]:
    """Tell a host that has not answered by the deadline from one that is away."""
    try:
        yield
    except HostUnavailable:
        left(deadline, CONNECT_SECONDS)
        raise
