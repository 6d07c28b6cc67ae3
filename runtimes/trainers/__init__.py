"""The trainers by name: one class a file, found in the files of this folder.

Importing them costs pydantic and none of their libraries.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from types import ModuleType

from runtimes.trainers.trainer import Trainer, TrainerParams

WITH_LIBRARIES = ("network", "page_learning", "pipeline")  # files that only a fit imports


def _files() -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(__path__):
        if found.name not in WITH_LIBRARIES:
            yield importlib.import_module(f"{__name__}.{found.name}")


def _trainers() -> Iterator[type[Trainer]]:
    """The classes that have a name; those that others are derived from have none."""
    for file in _files():
        kinds = (kind for kind in vars(file).values() if isinstance(kind, type) and issubclass(kind, Trainer))
        yield from (kind for kind in kinds if kind.__module__ == file.__name__ and "name" in vars(kind))


TRAINERS: Mapping[str, type[Trainer]] = {trainer.name: trainer for trainer in _trainers() if trainer.is_offered()}

__all__ = ["TRAINERS", "Trainer", "TrainerParams"]
