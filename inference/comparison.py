"""How alike the answers of two versions are: what is counted of them, and how counts are put together."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtimes.client import Prediction
from runtimes.signature import Batch

MOST_KEPT = 100  # disagreements
MOST_OF_A_REQUEST = 5
LONGEST_TEXT = 2_000  # of the inputs or outputs of one row
MOST_NUMBERS = 1 << 20  # of an output: what is worked out on the way takes some forty bytes for each of them
NEARLY = 1e-5  # relative: two versions of one model round differently


@dataclass
class Tally:
    """What was seen of a shadow, in sums, so that two tallies make one.

    answered_s, shadow_s: seconds in all. differences: of outputs that are numbers: their count, sum and most.
    failed: requests that the shadow could not answer; dropped: those it was not asked, since it was behind.
    """

    requests: int = 0
    rows: int = 0
    agreeing_rows: int = 0
    failed: int = 0
    dropped: int = 0
    answered_s: float = 0.0
    shadow_s: float = 0.0
    slowest_shadow_s: float = 0.0
    differences: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    disagreements: list[dict[str, Any]] = field(default_factory=list)
    last_failure: str = ""

    def add(self, other: "Tally") -> None:
        """Count in what another tally has, which is newer."""
        for name in ("requests", "rows", "agreeing_rows", "failed", "dropped", "answered_s", "shadow_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.slowest_shadow_s = max(self.slowest_shadow_s, other.slowest_shadow_s)
        for name, (count, total, most) in other.differences.items():
            had = self.differences.get(name, (0, 0.0, 0.0))
            self.differences[name] = (had[0] + count, had[1] + total, max(had[2], most))
        self.disagreements = (other.disagreements + self.disagreements)[:MOST_KEPT]
        self.last_failure = other.last_failure or self.last_failure

    def to_json(self) -> dict[str, Any]:
        """The tally as JSON values, which `from_json` reads."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Tally":
        """The tally that was kept; names that this release does not know are ignored."""
        known = {name: value for name, value in kept.items() if name in cls.__dataclass_fields__}
        differences = {name: tuple(parts) for name, parts in known.pop("differences", {}).items()}
        return cls(**known, differences=differences)


def compare(answered: Prediction, shadow: Prediction, batch: Batch, at: str) -> Tally:
    """What one request tells of two versions; at: when, for its disagreements.

    Rows agree where every output does: numbers within a hundred-thousandth, all else exactly, and so outputs that are
    very large.
    """
    rows = len(next(iter(answered.outputs.values())))
    agrees: np.ndarray = np.ones(rows, dtype=bool)
    tally = Tally(requests=1, rows=rows)
    for name, ours in answered.outputs.items():
        theirs = shadow.outputs.get(name)
        if theirs is None or theirs.shape != ours.shape:
            agrees[:] = False
        elif ours.dtype.kind in "fiu" and theirs.dtype.kind in "fiu" and ours.size <= MOST_NUMBERS:
            agrees &= _is_near(ours, theirs, name, tally)
        else:
            agrees &= _by_row(np.asarray(ours == theirs, dtype=bool))
    tally.agreeing_rows = int(agrees.sum())
    for row in np.flatnonzero(~agrees)[:MOST_OF_A_REQUEST].tolist():
        tally.disagreements.append(
            {
                "at": at,
                "row": row,
                "answered": _row_of(answered.outputs, row),
                "shadow": _row_of(shadow.outputs, row),
                "inputs": _row_of(batch, row),
            }
        )
    return tally


def _is_near(ours: np.ndarray, theirs: np.ndarray, name: str, tally: Tally) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    told = apart[np.isfinite(apart)]
    if told.size:
        tally.differences[name] = (int(told.size), float(told.sum()), float(told.max()))
    return _by_row(np.isclose(ours, theirs, rtol=NEARLY, equal_nan=True))


def _by_row(alike: np.ndarray) -> np.ndarray:
    alike = alike.reshape(len(alike), -1)
    return np.asarray(alike.all(axis=1), dtype=bool)


def _row_of(arrays: Mapping[str, np.ndarray] | np.ndarray, row: int) -> Any:
    """One row of a batch or of outputs as JSON values; its beginning as a text where it is long."""
    if isinstance(arrays, np.ndarray):
        value: Any = _plain(arrays[row])
    else:
        value = {name: _plain(values[row]) for name, values in arrays.items()}
    return value if len(text := str(value)) <= LONGEST_TEXT else text[:LONGEST_TEXT]


def _plain(value: Any) -> Any:
    """A value that JSON has, and PostgreSQL can keep; of a very long one, the beginning."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.ravel()[:LONGEST_TEXT].tolist() if value.size > LONGEST_TEXT else value.tolist()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, str):
        return value[: LONGEST_TEXT + 1].replace("\0", "").encode(errors="replace").decode()
    return value
