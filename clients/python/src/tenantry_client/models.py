"""A tenant's models and their versions."""

from __future__ import annotations

import io
import json
import pickle
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tenantry_client.connection import WAIT_S, Connection, RunFailed, TenantryError
from tenantry_client.datasets import Dataset, named
from tenantry_client.runs import PAUSE_S, Run


class Models:
    """The tenant's models, by name; a name that is not there yet may be uploaded to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __getitem__(self, name: str) -> Model:
        return Model(name, self._connection)


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
        found: dict[str, Any] = self._connection.post(f"models/{self.name}/predict", {**_rows(rows), **asked})
        return found

    def upload(self, estimator: Any, *, metrics: Mapping[str, float] | None = None, **metadata: Any) -> Version:
        """The version that an estimator, a file's path or bytes become, once it was inspected.

        metadata: `description`, `params`, `tags`, `input_example` (a frame, too) and so on.

        Raises:
            RunFailed: it was rejected; the text says why.
        """
        described = {name: _split(value) if _is_frame(value) else value for name, value in metadata.items()}
        told = json.dumps({"metrics": dict(metrics or {}), **described})
        self._make_if_new()
        with _artifact(estimator) as (file_name, content):
            path, file = f"models/{self.name}/versions", ("file", (file_name, content))
            body = self._connection.send(path, {"metadata": told}, [file])
        return self.version(body["number"]).wait_until_ready()

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


@contextmanager
def _artifact(estimator: Any) -> Iterator[tuple[str, BinaryIO]]:
    if isinstance(estimator, str | Path):
        with Path(estimator).open("rb") as file:
            yield Path(estimator).name, file
    else:
        yield "model.pkl", io.BytesIO(estimator if isinstance(estimator, bytes) else _pickled(estimator))


def _pickled(estimator: Any) -> bytes:
    try:
        import cloudpickle as pickler  # takes classes of a notebook along, where it is installed
    except ImportError:
        pickler = pickle
    return bytes(pickler.dumps(estimator))


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
            time.sleep(PAUSE_S)
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
        body = {"target": target, **named(dataset)}
        return Run(
            self._connection, self._connection.post(f"models/{self.model}/versions/{self.number}/evaluate", body)
        )
