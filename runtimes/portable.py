"""Functions that travel inside the artifacts of models fitted here, by value: pandas and numpy are all they may use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def date_parts(frame: Any) -> Any:
    """Three numbers a date: its days since 1970 with the time of day, its month, its weekday; NaN where it is none."""
    parts = []
    for _, column in pd.DataFrame(frame).items():
        moments = pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True)
        days = (moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)
        parts += [days, moments.dt.month, moments.dt.weekday]
    return np.column_stack([np.asarray(part, dtype=np.float64) for part in parts])


def texts_of(column: Any) -> Any:
    """The texts of one column; an empty one where it is missing."""
    return ["" if value is None or value != value else str(value) for value in np.asarray(column, dtype=object).ravel()]
