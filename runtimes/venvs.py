"""Building the venv of a declared library set with pip: what the operator wants, then what runners need besides."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtimes.libraries import PYTHON

# what this package imports in a runner of any set, and what its adapters import beside a library
NEEDED = {"msgpack": "msgpack>=1,<2", "pyseccomp": "pyseccomp==0.1.2", "numpy": "numpy"}
NEEDED_BESIDE = {"scikit-learn": {"pandas": "pandas<3", "cloudpickle": "cloudpickle"}}
OLDEST = (3, 10)
STANDARD_ERROR = 2


class BuildFailed(Exception):
    """A library set could not be built; the text says why."""


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A new folder that takes the target's place when the block ends well, and is gone when it does not."""
    place = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        place.chmod(0o755)
        yield place
        _replace(place, target)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _replace(place: Path, target: Path) -> None:
    if not target.exists():
        place.rename(target)
        return
    with tempfile.TemporaryDirectory(prefix=".old.", dir=target.parent) as old:
        target.rename(Path(old, "set"))
        place.rename(target)


def install(place: Path, requirements: Path, wheels: Path | None, python: Path) -> None:
    """Make the venv and install the requirements; then what is missing for runners, changing nothing of them.

    Raises:
        BuildFailed.
    """
    if not requirements.is_file():
        raise BuildFailed(f"There is no requirements file {requirements}.")
    if wheels is not None and not wheels.is_dir():
        raise BuildFailed(f"There is no folder of wheels {wheels}.")
    _check_version(python)
    shutil.copy(requirements, place / "requirements.txt")
    _asked(
        [str(python), "-I", "-m", "venv", "--without-pip", str(place / PYTHON.parent.parent)],
        "The venv could not be made",
    )
    links = [] if wheels is None else ["--find-links", str(wheels.absolute())]
    _pip_install(place, *links, "--requirement", str(requirements.absolute()))
    installed = _installed(place)
    needed = dict(NEEDED)
    for library, companions in NEEDED_BESIDE.items():
        needed |= companions if library in installed else {}
    missing = [requirement for name, requirement in needed.items() if name not in installed]
    if missing:
        _pip_install(place, *links, "--constraint", str(place / "installed.txt"), *missing)
        _installed(place)


def _installed(place: Path) -> set[str]:
    """The names of what is installed; the versions are kept in installed.txt."""
    frozen = _asked([*_pip(place), "freeze", "--all"], "pip cannot list what it installed")
    (place / "installed.txt").write_text(frozen)
    return {line.partition("==")[0].partition(" @ ")[0].strip().lower() for line in frozen.splitlines()}


def _check_version(python: Path) -> None:
    told = _asked([str(python), "-I", "-c", "import sys; print(*sys.version_info[:2])"], f"{python} is no Python")
    version = tuple(int(number) for number in told.split())
    if version < OLDEST:
        raise BuildFailed(f"{python} is Python {version[0]}.{version[1]}; a library set needs 3.10 or newer.")


def _pip(place: Path) -> list[str]:
    return [sys.executable, "-m", "pip", "--python", str(place / PYTHON), "--disable-pip-version-check"]


def _pip_install(place: Path, *arguments: str) -> None:
    done = _run([*_pip(place), "install", *arguments], "pip does not start", stdout=STANDARD_ERROR)
    if done.returncode != 0:
        raise BuildFailed("pip could not install the libraries; what it printed says why.")


def _asked(command: list[str], failure: str) -> str:
    """What the command prints."""
    done = _run(command, failure, stdout=subprocess.PIPE)
    if done.returncode != 0:
        raise BuildFailed(f"{failure}.")
    return done.stdout


def _run(command: list[str], failure: str, stdout: int) -> subprocess.CompletedProcess[str]:
    """The ended command; its errors went to the operator's terminal, and everybody may read what it wrote."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=stdout, text=True, check=False, umask=0o022, env=_environment()
        )
    except OSError as error:
        raise BuildFailed(f"{failure} ({error}).") from error


def _environment() -> dict[str, str]:
    """The operator's own, with pip's settings in it, less what would have Python write no bytecode: runners cannot."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")}
