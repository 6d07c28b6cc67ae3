"""What a client knows of a model host outlives that host, and never leads to another tenant's model."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from runtimes.asking import Way
from runtimes.client import HostClient, Runner
from tests.runtimes import hosts
from tests.runtimes.conftest import Load

ROW = np.zeros((1, 4))


def saying(word: str) -> LogisticRegression:
    """A classifier of four features that knows this word alone and its opposite."""
    rows = np.repeat([[-1.0], [1.0]], 10, axis=0) * np.ones(4)
    return LogisticRegression().fit(rows, [word] * 10 + [f"not {word}"] * 10)


def answer(runner: Runner) -> str:
    return str(runner.predict(ROW, deadline_s=60).outputs["prediction"][0])


def from_a_new_thread(runner: Runner) -> str:
    """The answer over a connection that is opened for it."""
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(answer(runner)))
    thread.start()
    thread.join()
    return answers[0]


def test_a_way_of_a_host_that_is_gone_leads_to_no_other_tenant(folder: Path, load_request: Load) -> None:
    process, old = hosts.start(folder)
    acme = old.runner("acme/1", load_request(saying("acme")))
    process.kill()
    process.wait()

    with hosts.ended(hosts.start(folder)) as new:
        globex = new.runner("globex/1", load_request(saying("globex"), tenant="globex"))

        assert "globex" in answer(globex)
        assert "acme" in from_a_new_thread(acme)


def test_a_runner_refuses_what_is_meant_for_another(client: HostClient, load_request: Load) -> None:
    own = HostClient(str(client._path))
    acme = own.runner("acme/2", load_request(saying("acme")))
    own.runner("globex/2", load_request(saying("globex"), tenant="globex"))
    (right,), (wrong,) = own._directory.ways["acme/2"], own._directory.ways["globex/2"]

    for way in (wrong, Way(wrong.path, right.generation, right.limits)):
        own._directory.ways["acme/2"] = (way,)
        assert "acme" in from_a_new_thread(acme)
        assert own._directory.ways["acme/2"] == (right,)


def test_generations_and_paths_are_of_one_host_alone(folder: Path, load_request: Load) -> None:
    ways: list[Way] = []
    for _ in range(2):
        with hosts.ended(hosts.start(folder)) as client:
            client.runner("a", load_request(saying("yes")))
            ways += client._directory.ways["a"]

    assert ways[0].path != ways[1].path
    assert ways[0].generation != ways[1].generation
