"""How far the rows that a version is asked for have moved from the table that it was measured on.

By the population stability index of each column: the sum of (now - then) ln(now / then) over the shares of groups of
its values. Credit scoring, where it comes from, calls a population changed above 0.25 (Siddiqi, Credit Risk Scorecards,
2006). Two samples of one population have an index, too, of (groups - 1) (1 / rows then + 1 / rows now) on average
(Yurdakul, Statistical Properties of Population Stability Index, 2018), so that much is taken off.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inference.sampling import code_of
from runtimes.measured import Histogram
from runtimes.profiles import ColumnProfile, Profile
from runtimes.signature import STRING, Field

GROUPS = 10
LEAST_ROWS = 100
CHANGED = 0.25
NAME_CHARS = 30
MOST_ROWS = 1 << 53  # that a float counts exactly
TRUE = ("true", "1", "yes")
UNSEEN = 0.5  # what a group without a row counts for, so that its logarithm is a number


@dataclass(frozen=True)
class Moved:
    """A column and its index. then, now: what its values were and are like."""

    column: str
    index: float
    then: str
    now: str

    @property
    def is_changed(self) -> bool:
        """Whether it has moved so far that somebody should look."""
        return self.index >= CHANGED


@dataclass(frozen=True)
class Grouped:
    """How many values were in each group then and are now. first: what the first group is, where that can be said."""

    then: np.ndarray
    now: np.ndarray
    first: str = ""


def moved(profile: Profile, fields: Sequence[Field], rows: np.ndarray) -> list[Moved]:
    """Each column that can be compared, the one that has moved most first; none with fewer than LEAST_ROWS rows.

    rows: (n, len(fields)), as they were sampled.
    """
    if len(rows) < LEAST_ROWS:
        return []
    known = {column.name: column for column in profile.columns if _adds_up(column, profile.row_count)}
    found = [
        Moved(field.name, stability_index(groups), *_in_words(column, groups, values))
        for field, values in zip(fields, rows.T, strict=True)
        if (column := known.get(field.name)) and (groups := _grouped(column, profile.row_count, field, values))
    ]
    return sorted(found, key=lambda one: -one.index)


def _adds_up(column: ColumnProfile, row_count: int) -> bool:
    """Whether no more is counted than there are rows: a profile comes out of a runner, which may lie."""
    edges, counts = (column.histogram.edges, column.histogram.counts) if column.histogram else ([0.0], [])
    counted = max(sum(counts), sum(one.count for one in column.top)) + column.missing
    return len(edges) == len(counts) + 1 and min(counts, default=0) >= 0 and counted <= row_count < MOST_ROWS


def stability_index(groups: Grouped) -> float:
    """The index of a column, less what chance makes of it on average; never below 0."""
    then, now = groups.then, groups.now
    shares = [(counts + UNSEEN) / (counts.sum() + UNSEEN * len(counts)) for counts in (then, now)]
    index = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    by_chance = (len(then) - 1) * (1 / max(then.sum(), 1) + 1 / max(now.sum(), 1))
    return float(max(index - by_chance, 0.0))


def _grouped(column: ColumnProfile, row_count: int, field: Field, values: np.ndarray) -> Grouped | None:
    """The column's values in groups, the missing ones last; None where the table's are of another kind."""
    present, first = values[~np.isnan(values)], ""
    then: Sequence[int] | np.ndarray
    now: Sequence[int] | np.ndarray
    if column.kind == "text" and column.top and field.dtype == STRING:
        (then, now), first = _by_value(column, row_count, present), column.top[0].value
    elif column.kind == "boolean" and field.dtype != STRING:
        (then, now), first = _by_truth(column, present), "true"
    elif column.kind == "number" and column.histogram and field.dtype != STRING:
        then, now = _by_size(column.histogram, present)
    else:
        return None
    missing = len(values) - len(present)
    return Grouped(np.append(then, column.missing).astype(float), np.append(now, missing).astype(float), first)


def _by_value(column: ColumnProfile, row_count: int, present: np.ndarray) -> tuple[list[int], list[int]]:
    """The frequent values, the most frequent first, and all others together."""
    frequent = {code_of(one.value): one.count for one in column.top}
    then, now = list(frequent.values()), [int((present == code).sum()) for code in frequent]
    others = row_count - column.missing - sum(then)
    return [*then, max(others, 0)], [*now, len(present) - sum(now)]


def _by_truth(column: ColumnProfile, present: np.ndarray) -> tuple[list[int], list[int]]:
    true = sum(one.count for one in column.top if one.value.lower() in TRUE)
    is_true = int((present != 0).sum())
    return [true, sum(one.count for one in column.top) - true], [is_true, len(present) - is_true]


def _by_size(histogram: Histogram, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbouring bars of the histogram, put together until each has a good part of the rows; and what is outside."""
    with np.errstate(over="ignore"):
        edges, counts = np.asarray(histogram.edges).astype(np.float32), np.asarray(histogram.counts)
    wanted, cuts, then, gathered = counts.sum() / GROUPS, [edges[0]], [0], 0
    for count, end in zip(counts.tolist(), edges[1:], strict=True):
        gathered += count
        if gathered >= wanted:
            cuts.append(end)
            then.append(gathered)
            gathered = 0
    cuts[-1] = np.nextafter(edges[-1], np.float32(np.inf))  # the greatest value is still inside
    then[-1] += gathered
    now = np.bincount(np.searchsorted(np.asarray(cuts), present, side="right"), minlength=len(cuts) + 1)
    return np.asarray([*then, 0]), now


def _in_words(column: ColumnProfile, groups: Grouped, values: np.ndarray) -> tuple[str, str]:
    """What the column was like and is: its mean or the share of its most frequent value, and of the missing ones."""
    present = values[np.isfinite(values)]
    means = column.mean, float(present.mean(dtype=np.float64)) if len(present) else None
    then, now = (_said(groups.first, *pair) for pair in zip((groups.then, groups.now), means, strict=True))
    return then, now


def _said(first: str, counts: np.ndarray, mean: float | None) -> str:
    missing = f"{counts[-1] / counts.sum():.0%} missing"
    if first:
        return f"{first[:NAME_CHARS]} {counts[0] / counts.sum():.0%}, {missing}"
    return missing if mean is None else f"mean {mean:.4g}, {missing}"
