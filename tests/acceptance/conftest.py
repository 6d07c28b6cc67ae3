"""One platform for all acceptance tests that leave it running."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.stack import Stack, running_stack


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    """A running platform, shared: a test makes its own tenant in it."""
    with tempfile.TemporaryDirectory(prefix="tenantry-acceptance-") as folder:
        Path(folder).chmod(0o711)  # the servers' account passes through to its own folder
        with running_stack(Path(folder)) as stack:
            yield stack
