"""One platform for all acceptance tests; who kills its parts comes last (`tests.plugin`)."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.stack import DISK_BYTES, LONGEST_PREDICTION_S, Stack, running_stack


@pytest.fixture(scope="package")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tenantry-acceptance-") as name:
        Path(name).chmod(0o711)  # the servers' account passes through to its own folder
        yield Path(name)


@pytest.fixture(scope="package")
def cache(folder: Path) -> Iterator[Path]:
    """The folder of this machine's copies of models: on a small disk of its own, where one can be mounted."""
    path = folder / "cache"
    path.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)], capture_output=True, check=False
        ).returncode
    )
    yield path
    if mounted:
        subprocess.run(["umount", "--lazy", str(path)], capture_output=True, check=False)


@pytest.fixture(scope="package")
def stack(folder: Path, cache: Path) -> Iterator[Stack]:
    """A running platform, shared: a test makes its own tenant in it."""
    deadline = str(int(LONGEST_PREDICTION_S))
    with running_stack(folder, BLOB_CACHE_ROOT=str(cache), PREDICTION_DEADLINE_S=deadline, WEB_THREADS="24") as stack:
        yield stack
