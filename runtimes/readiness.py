"""Whether a model host holds what must be there from the start, and whose duty it is to see to that.

The host has no credentials, so a client loads the pinned versions after each start: one at a time has the duty, and it
passes on when that client goes away.
"""

from __future__ import annotations

import secrets
import select
import threading
from collections.abc import Hashable

from runtimes.conversation import HostConversation

ATTENDED_SECONDS = 24 * 3600.0


class Readiness:
    """The host's side. epoch: differs at each start of a host."""

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(8)
        self.is_ready = False
        self._changed = threading.Condition()
        self._claimant: Hashable | None = None

    def claim(self, claimant: Hashable) -> bool:
        """Whether the claimant has the duty to preload now; False once the host is ready. Blocks until either."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_ready or self._claimant in (None, claimant))
            if not self.is_ready:
                self._claimant = claimant
            return not self.is_ready

    def finish(self, claimant: Hashable) -> bool:
        """Make the host ready, if this claimant has the duty to."""
        with self._changed:
            if self._claimant == claimant:
                self.is_ready, self._claimant = True, None
                self._changed.notify_all()
            return self.is_ready

    def abandon(self, claimant: Hashable) -> None:
        """Pass the duty on, if this claimant has it."""
        with self._changed:
            if self._claimant == claimant:
                self._claimant = None
                self._changed.notify_all()


class Attendance:
    """A client's presence at one life of the host.

    has_duty: whether this client must load what is pinned, and then call `finish`; going away passes the duty on.
    """

    def __init__(self, host: HostConversation) -> None:
        self._host = host
        answer = host.ask({"op": "claim_preload"}, timeout_s=ATTENDED_SECONDS)
        self.has_duty, self.epoch = bool(answer["duty"]), str(answer["epoch"])

    def __enter__(self) -> Attendance:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._host.__exit__(*exc_info)

    def finish(self) -> None:
        """Make the host ready."""
        self._host.ask({"op": "preload_done"})

    def wait_until_host_ends(self, timeout_s: float | None = None) -> bool:
        """Whether the host has ended, which makes its successor another one to attend; blocks, at most so long."""
        poll = select.poll()  # unlike select, it takes a descriptor of any number
        poll.register(self._host.fileno(), select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
