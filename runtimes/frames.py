"""Frames as what a signature, a prediction and JSON have of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from runtimes.signature import STRING, Batch, Field


def field_of(column: pd.Series) -> Field:
    """The input field that a column suggests; object columns are strings."""
    dtype = STRING if column.dtype == object else column.dtype.name
    return Field(str(column.name), dtype, (-1,), nullable=dtype != "bool")


def batch_of(frame: pd.DataFrame) -> Batch:
    """The batch that these rows are: strings and None in object arrays, other columns as they are."""
    return {
        str(name): _strings(column) if column.dtype == object else column.to_numpy() for name, column in frame.items()
    }


def _strings(column: pd.Series) -> np.ndarray:
    return np.array(column.where(column.notna(), None).tolist() or [], dtype=object)


def cells_of(frame: pd.DataFrame) -> list[list[Any]]:
    """The rows as JSON values."""
    rows = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    return [list(row) for row in rows]
