"""Model hosts for these tests, small fitted models, and loaders of them."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from sklearn.linear_model import LogisticRegression

from runtimes.bundle import pack
from runtimes.client import HostClient, LoadRequest, Runner
from runtimes.limits import Limits
from tests.runtimes import hosts

settings.register_profile("shared-cores", deadline=None, max_examples=60)
settings.load_profile("shared-cores")

Load = Callable[..., Callable[[], LoadRequest]]
SIGNATURE = {"layout": "tensor", "inputs": [{"name": "input", "dtype": "float64", "shape": [-1, 4]}], "outputs": []}


def bundle_of(files: Mapping[str, bytes] | bytes) -> int:
    """A read-only descriptor of a packed bundle that has no name; the taker closes it."""
    named = {"model.pkl": files} if isinstance(files, bytes) else files
    with tempfile.TemporaryFile() as out:
        pack([(path, io.BytesIO(data), len(data)) for path, data in named.items()], out)
        return os.open(f"/proc/self/fd/{out.fileno()}", os.O_RDONLY)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="tnt") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def client() -> Iterator[HostClient]:
    """A client of the session's host, which runs as the user who runs the tests."""
    with tempfile.TemporaryDirectory(prefix="tnt") as name:
        process, client = hosts.start(Path(name))
        yield client
        hosts.stop(process)


@pytest.fixture(scope="session")
def ordinary_client() -> Iterator[HostClient]:
    """A client of a host of an ordinary user, where the tests run as root and can start one."""
    if not hosts.can_open_namespaces():
        pytest.skip("needs root, to become an ordinary user with the interpreter in reach")
    with tempfile.TemporaryDirectory(prefix="tnt") as name:
        process, client = hosts.start_in_the_open(Path(name))
        yield client
        process.terminate()
        process.wait(20)


@pytest.fixture(params=["own user", "ordinary user"])
def any_client(request: pytest.FixtureRequest) -> HostClient:
    """A client of each kind of host in turn."""
    client: HostClient = request.getfixturevalue("client" if request.param == "own user" else "ordinary_client")
    return client


@pytest.fixture(scope="session")
def world() -> Iterator[Any]:
    """What attacks aim at (`tests.runtimes.world`)."""
    from tests.runtimes.world import World

    with tempfile.TemporaryDirectory(prefix="tnt") as name:
        made = World(Path(name))
        yield made
        made.close()


@pytest.fixture
def neighbour(any_client: HostClient, classifier: LogisticRegression, load_request: Load) -> Iterator[Runner]:
    """Another tenant's model; whatever happens beside it, it answers."""
    runner = any_client.runner("neighbour", load_request(classifier, tenant="globex"))
    yield runner
    assert runner.predict(np.zeros((1, 4)), deadline_s=10).outputs["prediction"].tolist() == [0]


@pytest.fixture(scope="session")
def iris_like() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(7)
    rows = random.normal(size=(90, 4)) + np.repeat(np.arange(3), 30)[:, None] * 3
    return rows, np.repeat(np.arange(3), 30)


@pytest.fixture(scope="session")
def classifier(iris_like: tuple[np.ndarray, np.ndarray]) -> LogisticRegression:
    return LogisticRegression().fit(*iris_like)


@pytest.fixture
def load_request() -> Load:
    """Makes a loader for a model, or for the bytes of its file."""

    def make(
        model: Any, *, format_name: str = "sklearn", tenant: str = "acme", limits: Limits | None = None, **options: Any
    ) -> Callable[[], LoadRequest]:
        data = model if isinstance(model, bytes) else pickle.dumps(model)
        declared = {"signature": SIGNATURE, **options}
        return lambda: LoadRequest(bundle_of(data), tenant, format_name, declared, limits or Limits())

    return make
