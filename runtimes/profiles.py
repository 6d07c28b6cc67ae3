"""What is known of a table after a look at all of it, as plain values; no library of tables is needed to read it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runtimes.measured import Histogram, Plain

MOST_COLUMNS = 1_000
SAMPLE_ROWS, SAMPLE_COLUMNS = 100, 200
CELL_CHARS = 200
TOP_VALUES = 10

Kind = Literal["number", "boolean", "date", "text", "empty"]


class Counted(Plain):
    """A value and how often it comes."""

    value: str = Field(max_length=CELL_CHARS)
    count: int = Field(ge=0)


class Quantile(Plain):
    """The value below which a part of all values lies."""

    part: float
    value: float


class ColumnProfile(Plain):
    """One column. missing, distinct: how many cells, how many different values. top: the most frequent values.

    mean, std, quantiles, histogram: of numbers; the first and the last quantile are the least and the greatest value.
    earliest, latest: of dates.
    """

    name: str = Field(max_length=1_000)
    kind: Kind
    missing: int = Field(ge=0)
    distinct: int = Field(ge=0)
    mean: float | None = None
    std: float | None = None
    quantiles: list[Quantile] = Field(default_factory=list, max_length=20)
    histogram: Histogram | None = None
    top: list[Counted] = Field(default_factory=list, max_length=TOP_VALUES)
    earliest: str | None = Field(default=None, max_length=CELL_CHARS)
    latest: str | None = Field(default=None, max_length=CELL_CHARS)


class Sample(Plain):
    """The first rows, every cell as text, long ones cut; None where a value is missing."""

    columns: list[str] = Field(max_length=SAMPLE_COLUMNS)
    rows: list[list[str | None]] = Field(max_length=SAMPLE_ROWS)


class Profile(Plain):
    """A table. names: of all its columns. columns: the profiles of the first ones, where there are very many."""

    row_count: int = Field(ge=0)
    names: list[str] = Field(max_length=10_000)
    columns: list[ColumnProfile] = Field(max_length=MOST_COLUMNS)
    sample: Sample
