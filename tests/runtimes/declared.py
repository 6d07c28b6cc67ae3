"""A declared library set for tests: an older scikit-learn, built once a machine by pip, and files that it made."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from runtimes import library_sets, venvs
from runtimes.libraries import LibrarySet, LibrarySets

NAME = "sklearn-1.2"
OLD_VERSION = "1.2.2"
REQUIREMENTS = f"scikit-learn=={OLD_VERSION}\nnumpy==1.26.4\n"  # numpy 2 came later than this scikit-learn
FIT = """
import pickle, sys
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
rows = np.arange(80.0).reshape(20, 4)
labels = np.arange(20) // 10
kind = {"forest": RandomForestClassifier(5, random_state=0), "logistic": LogisticRegression()}[sys.argv[1]]
pickle.dump(kind.fit(rows, labels), sys.stdout.buffer, protocol=4)
"""


def folder() -> Path:
    """The folder with the set, built by the first test of the machine that needs it; everybody may read it."""
    what = "\n".join([REQUIREMENTS, sys.version, Path(venvs.__file__).read_text()])
    place = Path(tempfile.gettempdir(), f"tenantry-library-sets-{os.getuid()}")
    place.mkdir(mode=0o755, exist_ok=True)
    assert place.stat().st_uid == os.getuid()
    sets = place / hashlib.sha256(what.encode()).hexdigest()[:16]
    with Path(f"{sets}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if LibrarySets(sets).find(NAME) is None:
            _build(sets)
    return sets


def _build(sets: Path) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(REQUIREMENTS)
        requirements.flush()
        try:
            library_sets.build(sets, NAME, Path(requirements.name))
        except venvs.BuildFailed as failure:
            if not _is_offered():
                pytest.skip(f"pip reaches no index that has scikit-learn {OLD_VERSION}: {failure}")
            raise


def _is_offered() -> bool:
    """Whether an index has what the set is made of."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"scikit-learn=={OLD_VERSION}"]
    with tempfile.TemporaryDirectory() as name:
        return subprocess.run([*command, "--dest", name], capture_output=True, check=False).returncode == 0


def the_set(sets: Path) -> LibrarySet:
    """The built set."""
    found = LibrarySets(sets).find(NAME)
    assert found is not None
    return found


def made_by_the_old(sets: Path, kind: str) -> bytes:
    """A pickle that the set's own interpreter made; nothing of it is loaded here."""
    command = [str(the_set(sets).python), "-I", "-c", FIT, kind]
    return subprocess.run(command, capture_output=True, check=True).stdout
