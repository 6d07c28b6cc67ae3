"""A look at a whole table, inside a confined runner."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from runtimes.bundle import FileSlice
from runtimes.coco_files import CocoFile, rows_of
from runtimes.measured import Histogram
from runtimes.messages import Connection
from runtimes.preparation import is_date
from runtimes.profiles import (
    CELL_CHARS,
    MOST_COLUMNS,
    SAMPLE_COLUMNS,
    SAMPLE_ROWS,
    TOP_VALUES,
    ColumnProfile,
    Counted,
    Profile,
    Quantile,
    Sample,
)
from runtimes.table_files import table_file

BINS = 20
LOOKED_AT = 50  # images of a set that are decoded, to know that they are images
PARTS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def profile(order: Mapping[str, Any], channel: Connection, dataset_fd: int) -> dict[str, Any]:
    """The profile of a table in a file, as JSON values.

    Raises:
        InvalidDataset: the file is no table; the sentence says where.
    """
    channel.send({"percent": 0.0, "stage": "reading"})
    frame = table_file(FileSlice.whole(dataset_fd), str(order["format"])).frame()
    channel.send({"percent": 50.0, "stage": "counting"})
    return profile_of(frame).model_dump()


def profile_images(order: Mapping[str, Any], channel: Connection, dataset_fd: int) -> dict[str, Any]:
    """The profile of images with annotations, as JSON values: a row an image, and of `label` how often each comes.

    Raises:
        InvalidImages: the file holds none; the sentence says where.
    """
    channel.send({"percent": 0.0, "stage": "reading"})
    file = CocoFile(FileSlice.whole(dataset_fd), os.fstat(dataset_fd).st_size)
    channel.send({"percent": 50.0, "stage": "counting"})
    for image in file.images[:: max(1, len(file.images) // LOOKED_AT)]:
        file.pixels(image)
    found = profile_of(pd.DataFrame(list(rows_of(file.images))))
    labels = pd.Series([one.label for image in file.images for one in image.boxes], dtype=object)
    columns = [_column("label", labels) if column.name == "label" else column for column in found.columns]
    return found.model_copy(update={"columns": columns}).model_dump()


def profile_of(frame: pd.DataFrame) -> Profile:
    """What is known of a frame after a look at all of it."""
    names = [str(name) for name in frame.columns]
    columns = [_column(name, frame[name]) for name in names[:MOST_COLUMNS]]
    return Profile(row_count=len(frame), names=names, columns=columns, sample=_sample(frame))


def _column(name: str, column: pd.Series) -> ColumnProfile:
    present = column.dropna()
    counts = present.value_counts()
    found = ColumnProfile(
        name=name,
        kind=_kind(present),
        missing=len(column) - len(present),
        distinct=len(counts),
        top=[Counted(value=_text(value), count=int(count)) for value, count in counts.head(TOP_VALUES).items()],
    )
    if found.kind == "number":
        return found.model_copy(update=_numbers(present))
    if found.kind == "date":
        words = present.astype(str)
        return found.model_copy(update={"earliest": _text(words.min()), "latest": _text(words.max())})
    return found


def _kind(present: pd.Series) -> Any:
    if present.empty:
        return "empty"
    if is_bool_dtype(present) or all(isinstance(value, bool) for value in present):
        return "boolean"
    if is_numeric_dtype(present):
        return "number"
    return "date" if is_date(present) else "text"


def _numbers(present: pd.Series) -> dict[str, Any]:
    values = present.to_numpy(dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return {}
    with np.errstate(all="ignore"):
        mean, std = float(np.mean(values)), float(np.std(values))
        counts, edges = _counted(values)
    quantiles = [
        Quantile(part=part, value=float(value)) for part, value in zip(PARTS, np.quantile(values, PARTS), strict=True)
    ]
    return {
        "mean": mean if np.isfinite(mean) else None,
        "std": std if np.isfinite(std) else None,
        "quantiles": quantiles,
        "histogram": Histogram(edges=edges, counts=counts) if edges else None,
    }


def _counted(values: np.ndarray) -> tuple[list[int], list[float]]:
    try:
        counts, edges = np.histogram(values, bins=BINS)
    except ValueError:  # numbers that lie so far apart, or so close, that there are no bins between them
        return [], []
    return counts.tolist(), edges.tolist()


def _sample(frame: pd.DataFrame) -> Sample:
    shown = frame.iloc[:SAMPLE_ROWS, :SAMPLE_COLUMNS].astype(object)
    rows = shown.where(shown.notna(), None).to_numpy().tolist()
    texts = [[None if value is None else _text(value) for value in row] for row in rows]
    return Sample(columns=[str(name) for name in shown.columns], rows=texts)


def _text(value: object) -> str:
    return f"{value:.12g}"[:CELL_CHARS] if isinstance(value, float) else str(value)[:CELL_CHARS]
