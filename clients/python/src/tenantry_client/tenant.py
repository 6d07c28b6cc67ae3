"""One tenant, and what it has."""

from __future__ import annotations

from typing import Any

from tenantry_client.connection import Connection
from tenantry_client.datasets import Datasets
from tenantry_client.models import Models
from tenantry_client.runs import Runs, Searches


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
