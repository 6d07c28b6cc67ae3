"""A zygote has used its libraries once, and has no thread but its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimes.client import HostClient
from runtimes.exercise import FIRST_USES


@pytest.mark.parametrize("library", sorted(FIRST_USES))
def test_each_library_can_be_used_as_a_zygote_does(library: str) -> None:
    pytest.importorskip(library)

    FIRST_USES[library]()


def test_a_zygote_has_one_thread(client: HostClient) -> None:
    """What it forks skips the C library's fork handlers, which is safe in such a process alone."""
    client.check()

    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in client.stats().zygotes.values()]

    assert statuses
    assert all("Threads:\t1\n" in status for status in statuses)
