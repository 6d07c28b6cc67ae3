"""Tables that are kept as files of bundles, as one app hands them to another."""

from dataclasses import dataclass

from models_registry.models import Bundle


@dataclass(frozen=True)
class StoredTable:
    """A table in a file of a bundle.

    path: of that file in the bundle. format: csv, jsonl or parquet. name: what the table is called; empty if nothing.
    """

    bundle: Bundle
    path: str
    format: str
    name: str
    file_name: str
