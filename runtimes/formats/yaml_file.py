"""YAML files of an artifact, read as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtimes.bundle import Files
from runtimes.errors import ArtifactRejected, plain

MAX_BYTES = 4 << 20


def read_yaml(files: Files, path: str) -> Mapping[str, Any]:
    """The map in a YAML file.

    Raises:
        ArtifactRejected: it is too large, is not YAML, or holds something else.
    """
    try:
        import yaml  # not every library set has it, and only some formats need it
    except ImportError as error:
        raise ArtifactRejected("missing_library", "This library set lacks PyYAML, which the artifact needs.") from error
    if files.size(path) > MAX_BYTES:
        raise _unreadable(path, f"it is larger than {MAX_BYTES >> 20} MiB")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(files.read(path), loader)  # noqa: S506 (both loaders make plain values only)
    except yaml.constructor.ConstructorError as error:
        raise _unreadable(
            path, "it holds tags, such as those of Python objects, and only plain values are read"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unreadable(path, "it is no YAML") from error
    if not isinstance(content, Mapping):
        raise _unreadable(path, "it is no map")
    return content


def _unreadable(path: str, why: str) -> ArtifactRejected:
    return ArtifactRejected("unreadable_artifact", f"The file '{plain(path, 80)}' cannot be read: {why}.")
