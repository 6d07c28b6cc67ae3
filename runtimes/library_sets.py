"""The operator's command for library sets, `python -m runtimes.library_sets` (docs/library-sets.md)."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from runtimes import venvs
from runtimes.errors import RuntimeFault
from runtimes.libraries import MANIFEST, PYTHON, WHEELS, LibrarySet, LibrarySets, is_name, read
from runtimes.zygotes import warm_up


def build(
    folder: Path, name: str, requirements: Path, *, wheels: Path | None = None, python: Path | None = None
) -> LibrarySet:
    """The set, built anew beside an older one of its name and put into its place when it has started once.

    Raises:
        venvs.BuildFailed: with what to tell the operator; nothing has changed.
    """
    if not is_name(name):
        raise venvs.BuildFailed(f"{name!r} is no name for a library set: small letters, digits, '.', '_' and '-'.")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if wheels is None and (folder / WHEELS).is_dir():
        wheels = folder / WHEELS
    with venvs.beside(folder / name) as place:
        venvs.install(place, requirements, wheels, python or Path(sys.executable))
        try:
            libraries = warm_up(name, place / PYTHON)
        except RuntimeFault as fault:
            raise venvs.BuildFailed(f"The set was built and does not work: {fault.message}") from fault
        (place / MANIFEST).write_text(json.dumps(libraries, indent=1))
        (place / MANIFEST).chmod(0o644)
    built = read(folder / name)
    if built is None:
        raise venvs.BuildFailed(f"Others may write to {folder}, so no model host would start what lies there.")
    return built


def remove(folder: Path, name: str) -> bool:
    """Whether there was such a set; there is none now. Runners that were started from it live on."""
    if not is_name(name) or not (folder / name).is_dir():
        return False
    shutil.rmtree(folder / name)
    return True


def table(library_sets: Iterable[LibrarySet]) -> str:
    """A line a set: its name and its libraries."""
    lines = (
        f"{each.name}: {', '.join(f'{name} {version}' for name, version in each.libraries.items())}"
        for each in library_sets
    )
    return "\n".join(lines)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m runtimes.library_sets", description="Sets of libraries for models."
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=_default_folder(),
        help="where they lie (default: LIBRARY_SETS, or VAR/library-sets)",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="build a set, or build it anew")
    building.add_argument("name")
    building.add_argument("requirements", type=Path, help="a requirements file, as pip takes it")
    building.add_argument("--wheels", type=Path, help=f"wheels that no index has (default: {WHEELS}/ beside the sets)")
    building.add_argument("--python", type=Path, help="the interpreter, 3.10 or newer (default: this one)")
    commands.add_parser("list", help="show the sets and their libraries")
    commands.add_parser("remove", help="remove a set").add_argument("name")
    return parser.parse_args(arguments)


def _default_folder() -> Path:
    return Path(os.environ.get("LIBRARY_SETS") or Path(os.environ.get("TENANTRY_VAR") or "var") / "library-sets")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it did what it was asked."""
    options = _parse(arguments)
    folder = options.folder.absolute()
    if options.command == "list":
        print(table(LibrarySets(folder).all()) or f"There is no library set in {folder}.")  # noqa: T201
    elif options.command == "remove":
        if not remove(folder, options.name):
            print(f"There is no library set {options.name!r} in {folder}.", file=sys.stderr)  # noqa: T201
            return 1
    else:
        try:
            built = build(folder, options.name, options.requirements, wheels=options.wheels, python=options.python)
        except venvs.BuildFailed as failure:
            print(f"library-sets: {failure}", file=sys.stderr)  # noqa: T201
            return 1
        print(table([built]))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
