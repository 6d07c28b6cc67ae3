"""After a start of the host, one client has the duty to load what is pinned, and the host is not ready before."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.client import HostClient
from runtimes.conversation import HostConversation
from runtimes.readiness import Attendance
from tests.runtimes import hosts
from tests.runtimes.conftest import Load

ROW = np.zeros((1, 4))


@pytest.fixture
def fresh_host(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], HostClient]]:
    process, client = hosts.start(folder)
    yield process, client
    process.kill()
    process.wait()


Host = tuple[subprocess.Popen[bytes], HostClient]


class Attending:
    """A client that attends the host from a thread of its own."""

    def __init__(self, client: HostClient) -> None:
        self.host = HostConversation(client._path)
        self.found: list[Attendance] = []
        self._thread = threading.Thread(target=self._attend, daemon=True)
        self._thread.start()

    def has_duty(self) -> bool:
        """Whether the host has given it the duty; False while it says nothing."""
        return bool(self.found) and self.found[0].has_duty

    def has_none(self) -> bool:
        """Whether the host has said that there is nothing to do."""
        return bool(self.found) and not self.found[0].has_duty

    def _attend(self) -> None:
        self.found.append(Attendance(self.host))


def test_one_client_has_the_duty_and_the_others_wait_for_it(fresh_host: Host) -> None:
    _, client = fresh_host
    first = client.attend()
    others = [Attending(client) for _ in range(3)]

    assert first.has_duty
    assert not client.is_ready()
    assert not any(other.found for other in others)
    first.finish()
    assert client.is_ready()
    assert hosts.eventually(lambda: all(other.has_none() for other in others))
    assert {other.found[0].epoch for other in others} == {client.stats().epoch}


def test_the_duty_passes_on_when_its_client_goes_away(fresh_host: Host) -> None:
    _, client = fresh_host
    with client.attend() as first:
        second = Attending(client)
        assert first.has_duty

    assert hosts.eventually(second.has_duty)
    assert not client.stats().is_ready


def test_the_duty_passes_over_a_client_that_waited_and_is_gone(fresh_host: Host) -> None:
    _, client = fresh_host
    with client.attend(), HostConversation(client._path) as gone:
        gone.tell({"op": "claim_preload"})

    assert client.attend().has_duty


def test_each_start_of_the_host_is_attended_anew(
    fresh_host: Host, folder: Path, classifier: Any, load_request: Load
) -> None:
    process, client = fresh_host
    attended = client.attend()
    client.pin("pinned")
    client.runner("pinned", load_request(classifier)).predict(ROW, deadline_s=30)
    attended.finish()
    assert not attended.wait_until_host_ends(0.0)

    process.kill()
    process.wait()

    assert attended.wait_until_host_ends(10)
    with hosts.ended(hosts.start(folder)):
        again = client.attend()
        assert again.has_duty
        assert again.epoch != attended.epoch
        assert not client.is_ready()
