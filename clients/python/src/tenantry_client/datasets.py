"""A tenant's datasets."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tenantry_client.connection import WAIT_S, Connection, RunFailed


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
        with _content(table, name) as (file_name, content):
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


@contextmanager
def _content(table: Any, name: str) -> Iterator[tuple[str, BinaryIO]]:
    if hasattr(table, "to_csv"):
        yield f"{name}.csv", io.BytesIO(table.to_csv(index=False).encode())
    elif isinstance(table, str | Path):
        with Path(table).open("rb") as file:
            yield Path(table).name, file
    else:
        yield name, table


def named(dataset: Dataset | str) -> dict[str, str]:
    """A dataset as requests name it: this version of it, or the newest one of a name."""
    return {"dataset": dataset} if isinstance(dataset, str) else {"dataset": dataset.name, "digest": dataset.digest}
