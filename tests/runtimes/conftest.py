"""A model host of its own for these tests, and small fitted models."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from runtimes.bundle import pack
from runtimes.client import HostClient, LoadRequest
from runtimes.limits import Limits

ROOT = Path(__file__).parents[2]


def start_host(folder: Path, *arguments: str, **options: Any) -> tuple[subprocess.Popen[bytes], HostClient]:
    """A running model host and a client of it."""
    path = folder / "models.sock"
    command = [sys.executable, "-m", "runtimes.host", "--socket", str(path), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, **options)
    deadline = time.monotonic() + 20
    while not path.exists():
        assert process.poll() is None, "the model host ended"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process, HostClient(f"unix:{path}")


def bundle_of(files: Mapping[str, bytes]) -> int:
    """A descriptor of a packed bundle with no name; the caller closes it."""
    with tempfile.TemporaryFile() as out:
        pack([(path, io.BytesIO(data), len(data)) for path, data in files.items()], out)
        return os.open(f"/proc/self/fd/{out.fileno()}", os.O_RDONLY)


@pytest.fixture(scope="session")
def host_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tnt") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def client(host_folder: Path) -> Iterator[HostClient]:
    process, client = start_host(host_folder)
    yield client
    process.terminate()
    assert process.wait(10) == 0


@pytest.fixture(scope="session")
def iris_like() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(7)
    rows = random.normal(size=(90, 4)) + np.repeat(np.arange(3), 30)[:, None] * 3
    return rows, np.repeat(np.arange(3), 30)


@pytest.fixture(scope="session")
def classifier(iris_like: tuple[np.ndarray, np.ndarray]) -> LogisticRegression:
    return LogisticRegression().fit(*iris_like)


Load = Callable[..., Callable[[], LoadRequest]]


@pytest.fixture
def load_request() -> Load:
    """Makes a loader for a pickled model, or for a bundle's files."""

    def make(
        model: Any, *, format_name: str = "sklearn", tenant: str = "acme", limits: Limits | None = None, **options: Any
    ) -> Callable[[], LoadRequest]:
        files = model if isinstance(model, dict) else {"model.pkl": pickle.dumps(model)}
        return lambda: LoadRequest(bundle_of(files), tenant, format_name, options, limits or Limits())

    return make
