"""Whoever answers predictions: how it is started, asked and understood."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import requests

from benchmarks.serving.cases import Case

START_LIMIT_S = 120.0
STOP_LIMIT_S = 15.0


@dataclass(frozen=True)
class Endpoint:
    """Where a running contestant answers a case, and what it wants to be sent."""

    url: str
    body: bytes
    authorization: str = ""

    def ask(self) -> Any:
        """The JSON that it answers."""
        headers = {"Content-Type": "application/json", "Authorization": self.authorization}
        answer = requests.post(self.url, data=self.body, headers=headers, timeout=30)
        answer.raise_for_status()
        return answer.json()


class Contestant(Protocol):
    """A server of predictions."""

    @property
    def name(self) -> str:
        """As the tables call it."""
        ...

    def takes(self, case: Case) -> bool:
        """Whether it is asked this case."""
        ...

    def running(self, model: str) -> Any:
        """A context manager that runs it with one model; gives a function from a case to its Endpoint."""
        ...

    def classes(self, answer: Any) -> tuple[int, ...]:
        """The predicted classes in an answer."""
        ...


@dataclass(frozen=True)
class Peer:
    """A program that listens at PORT and serves the model MODEL of the folder MODELS.

    command: its command line. settings: environment variables of its own.
    path: of the model's endpoint. encode: a body of rows. decode: the values in an answer.
    """

    name: str
    command: tuple[str, ...]
    models: Path
    path: Callable[[str], str]
    encode: Callable[[np.ndarray], Mapping[str, Any]]
    decode: Callable[[Any], list[Any]]
    settings: Mapping[str, str]

    def takes(self, case: Case) -> bool:
        return True

    def classes(self, answer: Any) -> tuple[int, ...]:
        return tuple(int(value) for value in np.ravel(self.decode(answer)))

    @contextmanager
    def running(self, model: str) -> Iterator[Callable[[Case], Endpoint]]:
        """The program, started and answering."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        log = self.models / f"{self.name.replace(' ', '_').replace(',', '')}.log"
        own = {"PORT": str(port), "MODEL": model, "MODELS": str(self.models), "OMP_NUM_THREADS": "1"}
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.command,
                env={**os.environ, **own, **self.settings},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield lambda case: Endpoint(
                f"http://127.0.0.1:{port}{self.path(model)}", json.dumps(self.encode(case.rows)).encode()
            )
        finally:
            _end(process)


def await_answer(endpoint: Endpoint) -> Any:
    """The first answer of a server that is starting.

    Raises:
        TimeoutError: it gave none in time.
    """
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            return endpoint.ask()
        except requests.RequestException as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer at {endpoint.url}: {error}") from error
            time.sleep(0.1)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a program and all that it started."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_LIMIT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
