"""Inspecting and serving whole bundles, for tests of what is more than one file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runtimes.client import HostClient, Inspection, LoadRequest, Prediction
from runtimes.errors import ArtifactRejected
from runtimes.limits import Limits
from tests.runtimes.conftest import bundle_of

Files = Mapping[str, bytes]


def files_in(folder: Path) -> dict[str, bytes]:
    """The files below a folder by their paths in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def inspected(client: HostClient, files: Files, *, limits: Limits | None = None, **metadata: Any) -> Inspection:
    """What an inspection finds in the files."""
    fd = bundle_of(files)
    try:
        return client.inspect(fd, tenant="acme", metadata=metadata, limits=limits)
    finally:
        os.close(fd)


def served(
    client: HostClient, files: Files, batch: Any, found: Inspection, *, probabilities: bool = False, **options: Any
) -> Prediction:
    """A prediction by a runner that loaded the files."""
    declared = {"signature": found.signature.to_json(), **options}
    content = hashlib.sha256(repr((sorted(files.items()), sorted(options.items()))).encode()).hexdigest()
    runner = client.runner(content, lambda: LoadRequest(bundle_of(files), "acme", found.format, declared))
    return runner.predict(batch, probabilities=probabilities, deadline_s=30)


def rejection(client: HostClient, files: Files, **metadata: Any) -> ArtifactRejected:
    """Why the files are refused, in a sentence."""
    with pytest.raises(ArtifactRejected) as rejected:
        inspected(client, files, **metadata)
    assert rejected.value.reason[0].isupper()
    assert rejected.value.reason.endswith(".")
    return rejected.value
