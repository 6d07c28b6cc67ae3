"""Python code that travels with a model: importable from the bundle, without a file system, in its runner alone.

A module is looked for in the folder `code/` and beside the model. The standard library and this package come first, so
that nothing that the runner itself needs can be replaced; any other library may be, at no cost but the artifact's.
Whatever opens a file by a relative path, or looks whether it is there, finds the bundle's files, too.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import stat
import sys
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import Any

from runtimes.bundle import Files

FOLDER = "code"
MAIN = "model"  # the module that stands for what a notebook called __main__
ROOTS = (f"{FOLDER}/", "")
RESERVED = sys.stdlib_module_names | {"runtimes"}
_stat, _open, _listdir = os.stat, io.open, os.listdir


def install(files: Files) -> None:
    """Make the bundle's code importable and its files readable by their paths, for the rest of this process."""
    if not has_code(files):
        return
    sys.meta_path.insert(0, CodeFinder(files))
    _stand_in_for_main(files)
    show_files(files)


def has_code(files: Files) -> bool:
    """Whether any Python code travels with the model."""
    return any(path.endswith(".py") for path in files.paths())


def is_code(path: str) -> bool:
    """Whether a file belongs to the code, data that lies among it included, and so is not the model."""
    return path.endswith((".py", ".pyc")) or path.startswith(f"{FOLDER}/")


def _stand_in_for_main(files: Files) -> None:
    """Let a pickle that was written in a notebook find its classes: what `__main__` lacks is looked for in model.py."""
    if not any(f"{root}{MAIN}.py" in files.paths() for root in ROOTS):
        return

    def found(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(MAIN), name)

    sys.modules["__main__"].__dict__["__getattr__"] = found


class CodeFinder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds and loads the modules in a bundle's code; `__file__` is a path in the bundle, such as `code/lib/x.py`."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._paths = frozenset(path for path in files.paths() if path.endswith(".py"))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a module in the bundle; None leaves it to the next finder."""
        parent, _, name = fullname.rpartition(".")
        if parent:
            folders = [f"{folder}/" for folder in path or () if not folder.startswith("/")]
        else:
            folders = [] if name in RESERVED else list(ROOTS)
        for folder in folders:
            for place, is_package in ((f"{folder}{name}/__init__.py", True), (f"{folder}{name}.py", False)):
                if place in self._paths:
                    return self._spec(fullname, place, is_package=is_package)
        return self._namespace(fullname, [f"{folder}{name}" for folder in folders])

    def _spec(self, fullname: str, place: str, *, is_package: bool) -> importlib.machinery.ModuleSpec:
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=place, is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations = [place.rpartition("/")[0]]
        return spec

    def _namespace(self, fullname: str, folders: list[str]) -> importlib.machinery.ModuleSpec | None:
        held = [folder for folder in folders if any(path.startswith(f"{folder}/") for path in self._paths)]
        if not held:
            return None
        spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = held
        return spec

    def is_package(self, fullname: str) -> bool:
        """Whether the module is a package."""
        return self._origin(fullname).endswith("/__init__.py")

    def get_source(self, fullname: str) -> str:
        """The module's text, for tracebacks too."""
        return importlib.util.decode_source(self._files.read(self._origin(fullname)))

    def get_code(self, fullname: str) -> CodeType:
        """The compiled module, whose frames name its path in the bundle."""
        place = self._origin(fullname)
        return self.source_to_code(self._files.read(place), place)

    def get_data(self, path: str) -> bytes:
        """A file of the bundle, as `pkgutil.get_data` asks for it."""
        try:
            return self._files.read(path)
        except KeyError as error:
            raise OSError(f"{path} is not in the bundle") from error

    def _origin(self, fullname: str) -> str:
        loaded = sys.modules.get(fullname)
        spec = loaded.__spec__ if loaded is not None else importlib.util.find_spec(fullname)
        if spec is None or spec.loader is not self or spec.origin is None:
            raise ImportError(f"{fullname} is not in the bundle", name=fullname)
        return spec.origin


def show_files(files: Files) -> None:
    """Let `open`, `os.stat` and `os.listdir` find the bundle's files by their paths, relative or below `/`.

    An artifact has no other way to a file by name: the process is confined before. Nothing here is a boundary.
    """
    paths = frozenset(files.paths())
    folders = {"/".join(path.split("/")[:count]) for path in paths for count in range(path.count("/") + 1)}

    def bundled(path: Any) -> str | None:
        if not isinstance(path, str | os.PathLike):
            return None
        place = os.path.normpath(os.fspath(path)).lstrip("/") if os.fspath(path) else None
        return place if isinstance(place, str) else None

    def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        place = bundled(file)
        if place not in paths:
            return _open(file, mode, *arguments, **options)
        if set(mode) & set("wax+"):
            raise PermissionError(f"{place} can only be read")
        binary = files.open(place)
        if "b" in mode:
            return binary
        named = dict(zip(("buffering", "encoding", "errors", "newline"), arguments, strict=False)) | options
        return io.TextIOWrapper(binary, **{n: named[n] for n in ("encoding", "errors", "newline") if n in named})

    def status(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        place = bundled(path)
        if place in paths:
            return os.stat_result((stat.S_IFREG | 0o444, 0, 0, 1, 0, 0, files.size(place), 0, 0, 0))
        if place in folders and place:
            return os.stat_result((stat.S_IFDIR | 0o555, 0, 0, 1, 0, 0, 0, 0, 0, 0))
        return _stat(path, *arguments, **options)

    def listed(path: Any = ".") -> list[Any]:
        place = bundled(path)
        if place not in folders or not place:
            return _listdir(path)
        below = (inner[len(place) + 1 :] for inner in paths if inner.startswith(f"{place}/"))
        return sorted({inner.partition("/")[0] for inner in below})

    builtins.open = io.open = opened
    os.stat, os.listdir = status, listed
