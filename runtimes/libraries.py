"""Named sets of libraries that an operator declares: each a requirements file, a venv of its own, a zygote of its own.

A version names the set that it needs by `library_set` in its metadata; the sets of the platform's own libraries are
`sklearn`, `torch` and, for serving alone, `onnx`; `runtimes.library_sets` builds the others. `pages` opens documents.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtimes.errors import ArtifactRejected, plain

SERVES_ONLY = "onnx"  # nothing is inspected or fitted in it, so nobody names it
PAGES = "pages"  # reads documents, and no model
BUILT_IN = ("sklearn", "torch", SERVES_ONLY, PAGES)
WHEELS = "wheels"  # a folder beside the sets, for what no index has
MANIFEST = "set.json"
PYTHON = Path("venv", "bin", "python")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,49}")
VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})(?:[.+a-zA-Z0-9]{0,30})")
DECISIVE = ("scikit-learn", "torch")  # whose files of one minor version another one may not load
GUIDE = "docs/library-sets.md"

Versions = Mapping[str, str]


@dataclass(frozen=True)
class LibrarySet:
    """One declared set, ready to be started.

    libraries: versions by name, as they were when it was built. built_ns: changes when it is built anew.
    """

    name: str
    python: Path
    libraries: Versions
    built_ns: int


class LibrarySets:
    """The declared sets of one folder, which may not be there; read anew at every question."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def find(self, name: str) -> LibrarySet | None:
        """The set of this name, if it was built."""
        if self._folder is None or not is_name(name):
            return None
        return read(self._folder / name)

    def all(self) -> list[LibrarySet]:
        """Every set that was built, by name."""
        if self._folder is None or not self._folder.is_dir():
            return []
        found = (self.find(path.name) for path in sorted(self._folder.iterdir()))
        return [library_set for library_set in found if library_set is not None]

    def unknown(self, name: str) -> ArtifactRejected:
        """What to tell whoever names a set that is not here."""
        own = [name for name in BUILT_IN if name not in (SERVES_ONLY, PAGES)]
        names = ", ".join([*own, *(library_set.name for library_set in self.all())])
        return ArtifactRejected(
            "unknown_library_set",
            f"There is no library set {plain(name, 60)!r} here, only: {plain(names, 200)}. "
            f"The operator adds one as {GUIDE} says.",
        )


def is_name(text: str) -> bool:
    """Whether a declared set may have this name."""
    return NAME.fullmatch(text) is not None and text not in (*BUILT_IN, WHEELS)


def read(folder: Path) -> LibrarySet | None:
    """The set in a folder; None where none was built, or where others may write."""
    try:
        manifest = folder / MANIFEST
        if any(_may_be_written_by_others(path) for path in (folder.parent, folder, manifest)):
            return None  # then it is not the operator's word
        libraries = {str(name): str(version) for name, version in json.loads(manifest.read_bytes()).items()}
        return LibrarySet(folder.name, folder / PYTHON, libraries, manifest.stat().st_mtime_ns)
    except (OSError, ValueError, AttributeError):
        return None


def _may_be_written_by_others(path: Path) -> bool:
    stat = path.stat()
    return stat.st_uid not in (0, os.getuid()) or bool(stat.st_mode & 0o022)


def differing(made_with: Versions, libraries: Versions) -> tuple[str, str] | None:
    """The library and version that made an artifact, where these libraries hold another minor version of it."""
    for name in DECISIVE:
        made, present = minor(made_with.get(name)), minor(libraries.get(name))
        if made is not None and made != present:
            return name, made_with[name]
    return None


def minor(version: str | None) -> str | None:
    """`1.2` of `1.2.2`; None for what is no version."""
    match = VERSION.fullmatch(version or "")
    return f"{match[1]}.{match[2]}" if match else None


def suiting(made_with: Versions, libraries: Versions, declared: Mapping[str, Versions]) -> str | None:
    """The set that suits an artifact better than these libraries; None where they suit, or where there is none.

    made_with: what the artifact says, hostile or not. declared: the libraries of every set of the machine, by its name.
    """
    difference = differing(made_with, libraries)
    if difference is None:
        return None
    library, version = difference
    suiting = [name for name, held in declared.items() if minor(held.get(library)) == minor(version)]
    exact = [name for name in suiting if declared[name][library] == version]
    return next(iter(exact + suiting), None)


def advice(made_with: Versions, libraries: Versions, declared: Mapping[str, Versions]) -> str | None:
    """Two sentences on what would load an artifact that these libraries do not; None where they are not the reason."""
    difference = differing(made_with, libraries)
    if difference is None:
        return None
    library, version = difference
    name = suiting(made_with, libraries, declared)
    present = libraries.get(library, "another version")
    told = f"The artifact was made with {library} {version}, which {present} cannot load."
    if name is not None:
        return f'{told} Send it with "library_set": "{name}".'
    return f"{told} No library set here has that version; the operator adds one as {GUIDE} says."
