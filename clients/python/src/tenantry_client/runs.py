"""A tenant's runs and searches."""

from __future__ import annotations

import io
import json
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tenantry_client.connection import Connection, RunFailed
from tenantry_client.datasets import Dataset, named

BAR_CHARS = 30
PAUSE_S = 0.1  # a platform with many who wait answers at once


class Run:
    """A run or a search, as it was when it was last looked at."""

    def __init__(self, connection: Connection, body: Mapping[str, Any], kind: str = "runs") -> None:
        self._connection, self._kind = connection, kind
        self.body = dict(body)

    def __repr__(self) -> str:
        return f"<{self._kind[:-1] if self._kind == 'runs' else 'search'} {self.id} {self.state}>"

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.body["id"])

    @property
    def state(self) -> str:
        """`queued`, `running`, `succeeded`, `failed` or `cancelled`."""
        return str(self.body["state"])

    @property
    def metrics(self) -> dict[str, float]:
        """What was measured."""
        return dict(self.body["metrics"])

    @property
    def params(self) -> dict[str, Any]:
        """The trainer's parameters; of a search those of its best trial, once there is one."""
        return dict(self.body["params"])

    @property
    def decision(self) -> dict[str, Any] | None:
        """What became of `activate_if`, with the numbers that were compared; None where nothing was asked."""
        found: dict[str, Any] | None = self.body["activation_decision"]
        return found

    @property
    def version(self) -> int | None:
        """The number of the version that it made."""
        number: int | None = self.body["version"]
        return number

    def refresh(self, wait_s: float = 0) -> Run:
        """This run as it is now, or once it has ended, or after so many seconds."""
        self.body = self._connection.get(f"{self._kind}/{self.id}", wait=wait_s)
        return self

    def wait(self, timeout_s: float = 24 * 3600, *, shows_progress: bool = True) -> Run:
        """This run once it has ended well and its activation, if one was asked for, is decided.

        Raises:
            RunFailed: it has failed or was cancelled. TimeoutError: it has not ended in time.
        """
        deadline, bar = time.monotonic() + timeout_s, _Bar(shows_progress)
        while self._goes_on():
            bar.show(self.state, self.body["progress"])
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self!r} has not ended in {timeout_s:g} s.")
            time.sleep(PAUSE_S)
            self.refresh(1)
        bar.end(self.state)
        if self.state != "succeeded":
            error = self.body.get("error") or {}
            raise RunFailed(error.get("message") or f"It was {self.state}.")
        return self

    def _goes_on(self) -> bool:
        return self.state in ("queued", "running") or (self.decision or {}).get("state") == "pending"

    def cancel(self) -> Run:
        """End it, a search with all its trials."""
        self._connection.post(f"runs/{self.id}/cancel")
        return self.refresh()

    def log(self) -> list[str]:
        """What happened in it, a line each."""
        return list(self._connection.get(f"runs/{self.id}/logs")["lines"])

    def evaluation(self) -> dict[str, Any]:
        """Metrics, folds, confusion matrix, residuals and the columns' importance."""
        found: dict[str, Any] = self._connection.get(f"runs/{self.id}/evaluation")
        return found


class _Bar:
    """A line of progress that is written over, on a terminal and in a notebook alike."""

    def __init__(self, is_shown: bool) -> None:
        self._is_shown, self._last = is_shown, ""

    def show(self, state: str, progress: Mapping[str, Any] | None) -> None:
        percent = float((progress or {}).get("percent", 0))
        done = int(BAR_CHARS * percent / 100)
        self._write(
            f"[{'#' * done}{'.' * (BAR_CHARS - done)}] {percent:3.0f}% {(progress or {}).get('stage') or state}"
        )

    def end(self, state: str) -> None:
        self._write(f"[{'#' * BAR_CHARS}] {state}")
        if self._is_shown:
            sys.stderr.write("\n")

    def _write(self, line: str) -> None:
        if self._is_shown and line != self._last:
            sys.stderr.write(f"\r{line:<100}")
            sys.stderr.flush()
            self._last = line


class Runs:
    """The tenant's runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start(self, trainer: str, dataset: Dataset | str, target: str, model: str, **asked: Any) -> Run:
        """A run that has begun. asked: `params`, `validation`, `activate_if`, `experiment`."""
        body = {"trainer": trainer, "target": target, "model": model, **named(dataset), **asked}
        return Run(self._connection, self._connection.post("runs", body))

    def start_program(self, program: str | Path, dataset: Dataset | str, target: str, model: str, **asked: Any) -> Run:
        """A run of a program of one's own that has begun. program: a folder with a `train.py`, or such a file itself.

        asked: `params`, `activate_if`, `experiment`, `library_set`.
        """
        told = json.dumps({"target": target, "model": model, **named(dataset), **asked})
        code = ("code", ("program.zip", _zipped(Path(program))))
        return Run(self._connection, self._connection.send("runs/custom", {"run": told}, [code]))

    def list(self, **query: Any) -> Sequence[Run]:
        """The newest runs, or as `experiment=…`, `order_by="-metrics.f1"` and so on say."""
        return [Run(self._connection, body) for body in self._connection.get("runs", **query)["results"]]

    def __getitem__(self, run_id: str) -> Run:
        return Run(self._connection, self._connection.get(f"runs/{run_id}"))

    def compare(self, *runs: Run) -> dict[str, Any]:
        """Parameters and metrics side by side, curves and confusion matrices."""
        found: dict[str, Any] = self._connection.get("runs/compare", ids=",".join(run.id for run in runs))
        return found


def _zipped(program: Path) -> io.BytesIO:
    """The Python files and the schema of a program, or the one file as its `train.py`."""
    found = {file.relative_to(program).as_posix(): file for file in program.rglob("*") if file.is_file()}
    kept = {path: file for path, file in found.items() if file.suffix in (".py", ".json") and "__pycache__" not in path}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, file in (kept or {"train.py": program}).items():
            archive.write(file, path)
    content.seek(0)
    return content


class Searches:
    """The tenant's searches."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start(
        self, trainer: str, dataset: Dataset | str, target: str, model: str, space: Mapping[str, Any], **asked: Any
    ) -> Run:
        """A search that has begun. asked: `metric`, `method`, `trials`, `params`, `validation` and so on."""
        body = {"trainer": trainer, "target": target, "model": model, "space": dict(space), **named(dataset), **asked}
        return Run(self._connection, self._connection.post("searches", body), "searches")
