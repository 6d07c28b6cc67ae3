"""What one tenant has: datasets, runs, searches, models."""

from __future__ import annotations

import io
import json
import pickle
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tenantry_client.connection import Connection, TenantryError

WAIT_S = 20
BAR_CHARS = 30


class RunFailed(Exception):
    """A run, a search or an inspection ended without success; the text says why."""


class Tenant:
    """One tenant of a platform. url: its address, such as `https://ml.example.com/t/acme`."""

    def __init__(self, url: str, token: str) -> None:
        self._connection = Connection(url, token)
        self.datasets = Datasets(self._connection)
        self.runs = Runs(self._connection)
        self.searches = Searches(self._connection)
        self.models = Models(self._connection)

    def trainers(self) -> dict[str, dict[str, Any]]:
        """The trainers by name: task, JSON Schema of the parameters, metrics."""
        return {trainer["name"]: trainer for trainer in self._connection.get("trainers")["results"]}


@dataclass(frozen=True)
class Dataset:
    """A version of a dataset."""

    name: str
    digest: str
    _connection: Connection

    @property
    def path(self) -> str:
        """Where it is, below the API."""
        return f"datasets/{self.name}/versions/{self.digest}"

    def profile(self, wait_s: int = 60) -> dict[str, Any]:
        """Rows, and of each column type, missing and distinct values, quantiles; waits until it is made."""
        profile: dict[str, Any] = self._connection.get(f"{self.path}/profile", wait=wait_s)
        return profile


class Datasets:
    """The tenant's datasets."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def upload(self, table: Any, name: str) -> Dataset:
        """Upload a pandas frame, a file's path or an open file; once more, it is the version that is there already.

        Returns when it can be used.

        Raises:
            RunFailed: the platform found that it is no table.
        """
        file_name, content = _content(table, name)
        body = self._connection.send("datasets", {"name": name}, [("file", (file_name, content))])
        dataset = Dataset(body["name"], body["digest"], self._connection)
        while body["state"] == "profiling":
            body = self._connection.get(dataset.path, wait=WAIT_S)
        if body["state"] == "rejected":
            raise RunFailed(body["rejection_reason"])
        return dataset

    def __getitem__(self, name: str) -> Dataset:
        body = self._connection.get(f"datasets/{name}")
        return Dataset(body["name"], body["digest"], self._connection)


def _content(table: Any, name: str) -> tuple[str, BinaryIO]:
    if hasattr(table, "to_csv"):
        return f"{name}.csv", io.BytesIO(table.to_csv(index=False).encode())
    if isinstance(table, str | Path):
        return Path(table).name, Path(table).open("rb")
    return name, table


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
    def version(self) -> int | None:
        """The number of the version that it made."""
        number: int | None = self.body["version"]
        return number

    def refresh(self, wait_s: float = 0) -> Run:
        """This run as it is now, or once it has ended, or after so many seconds."""
        self.body = self._connection.get(f"{self._kind}/{self.id}", wait=wait_s)
        return self

    def wait(self, timeout_s: float = 24 * 3600, *, shows_progress: bool = True) -> Run:
        """This run once it has ended well.

        Raises:
            RunFailed: it has failed or was cancelled. TimeoutError: it has not ended in time.
        """
        deadline, bar = time.monotonic() + timeout_s, _Bar(shows_progress)
        while self.state in ("queued", "running"):
            bar.show(self.state, self.body["progress"])
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self!r} has not ended in {timeout_s:g} s.")
            self.refresh(1)
        bar.end(self.state)
        if self.state != "succeeded":
            error = self.body.get("error") or {}
            raise RunFailed(error.get("message") or f"It was {self.state}.")
        return self

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
        body = {"trainer": trainer, "target": target, "model": model, **_named(dataset), **asked}
        return Run(self._connection, self._connection.post("runs", body))

    def list(self, **query: Any) -> Sequence[Run]:
        """The newest runs, or as `experiment=…`, `order_by="-metrics.f1"` and so on say."""
        return [Run(self._connection, body) for body in self._connection.get("runs", **query)["results"]]

    def __getitem__(self, run_id: str) -> Run:
        return Run(self._connection, self._connection.get(f"runs/{run_id}"))

    def compare(self, *runs: Run) -> dict[str, Any]:
        """Parameters and metrics side by side, curves and confusion matrices."""
        found: dict[str, Any] = self._connection.get("runs/compare", ids=",".join(run.id for run in runs))
        return found


class Searches:
    """The tenant's searches."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start(
        self, trainer: str, dataset: Dataset | str, target: str, model: str, space: Mapping[str, Any], **asked: Any
    ) -> Run:
        """A search that has begun. asked: `metric`, `method`, `trials`, `params`, `validation` and so on."""
        body = {"trainer": trainer, "target": target, "model": model, "space": dict(space), **_named(dataset), **asked}
        return Run(self._connection, self._connection.post("searches", body), "searches")


def _named(dataset: Dataset | str) -> dict[str, str]:
    return {"dataset": dataset} if isinstance(dataset, str) else {"dataset": dataset.name, "digest": dataset.digest}


class Models:
    """The tenant's models, by name; a name that is not there yet may be uploaded to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __getitem__(self, name: str) -> Model:
        return Model(name, self._connection)


def _rows(rows: Any) -> dict[str, Any]:
    """Rows as the body of a prediction names them. A frame's numbers keep every digit, and its dates are ISO texts."""
    if _is_frame(rows):
        return {"dataframe_split": _split(rows)}
    listed = rows.tolist() if hasattr(rows, "tolist") else list(rows)
    return {"dataframe_records" if listed and isinstance(listed[0], Mapping) else "instances": listed}


def _is_frame(value: Any) -> bool:
    return hasattr(value, "columns") and hasattr(value, "notna")


def _split(frame: Any) -> dict[str, Any]:
    cells = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    return {"columns": [str(name) for name in frame.columns], "data": [[_plain(cell) for cell in row] for row in cells]}


def _plain(cell: Any) -> Any:
    """What JSON can say of a cell: a moment in ISO form, a number of numpy's as Python's."""
    if hasattr(cell, "isoformat"):
        return cell.isoformat()
    return cell.item() if hasattr(cell, "item") else cell


@dataclass(frozen=True)
class Model:
    """A registered model."""

    name: str
    _connection: Connection

    def predict(self, rows: Any, **asked: Any) -> list[Any]:
        """One prediction a row of a frame, or of a list of records. asked: `version`, `alias`, `probabilities`."""
        found: list[Any] = self.answer(rows, **asked)["predictions"]
        return found

    def answer(self, rows: Any, **asked: Any) -> dict[str, Any]:
        """The whole answer to a prediction: `predictions`, `probabilities`, `classes`, the version that gave it."""
        body = _rows(rows)
        found: dict[str, Any] = self._connection.post(f"models/{self.name}/predict", {**body, **asked})
        return found

    def upload(self, estimator: Any, *, metrics: Mapping[str, float] | None = None, **metadata: Any) -> Version:
        """The version that an estimator, a file's path or bytes become, once it was inspected.

        metadata: `description`, `params`, `tags`, `input_example` and so on.

        Raises:
            RunFailed: it was rejected; the text says why.
        """
        file_name, content = _artifact(estimator)
        told = json.dumps({"metrics": dict(metrics or {}), **metadata})
        path = f"models/{self.name}/versions"
        self._make_if_new()
        body = self._connection.send(path, {"metadata": told}, [("file", (file_name, content))])
        while body["state"] in ("pending", "inspecting"):
            body = self._connection.get(f"{path}/{body['number']}", wait=WAIT_S)
        if body["state"] != "ready":
            raise RunFailed(body.get("rejection_reason") or body.get("reason") or "It was rejected.")
        return self.version(body["number"])

    def _make_if_new(self) -> None:
        try:
            self._connection.post("models", {"name": self.name})
        except TenantryError as error:
            if error.code != "already_exists":
                raise

    def version(self, number: int | None) -> Version:
        """One of its versions."""
        if number is None:
            raise ValueError("There is no version: the run has made none.")
        return Version(self.name, number, self._connection)


def _artifact(estimator: Any) -> tuple[str, BinaryIO]:
    if isinstance(estimator, bytes):
        return "model.pkl", io.BytesIO(estimator)
    if isinstance(estimator, str | Path):
        return Path(estimator).name, Path(estimator).open("rb")
    try:
        import cloudpickle as pickler  # takes classes of a notebook along, where it is installed
    except ImportError:
        pickler = pickle
    return "model.pkl", io.BytesIO(pickler.dumps(estimator))


@dataclass(frozen=True)
class Version:
    """A version of a model."""

    model: str
    number: int
    _connection: Connection

    def describe(self) -> dict[str, Any]:
        """All that is known of it."""
        found: dict[str, Any] = self._connection.get(f"models/{self.model}/versions/{self.number}")
        return found

    def wait_until_ready(self) -> Version:
        """This version, once it was inspected.

        Raises:
            RunFailed: it was rejected.
        """
        path = f"models/{self.model}/versions/{self.number}"
        while (body := self._connection.get(path, wait=WAIT_S))["state"] in ("pending", "inspecting"):
            pass
        if body["state"] != "ready":
            raise RunFailed(str(body.get("rejection_reason") or "It was rejected."))
        return self

    def activate(self, reason: str = "") -> Version:
        """This version, serving."""
        self.wait_until_ready()
        self._connection.post(f"models/{self.model}/versions/{self.number}/activate", {"reason": reason})
        return self

    def evaluate(self, dataset: Dataset | str, target: str) -> Run:
        """A run that measures it."""
        body = {"target": target, **_named(dataset)}
        return Run(
            self._connection, self._connection.post(f"models/{self.model}/versions/{self.number}/evaluate", body)
        )
