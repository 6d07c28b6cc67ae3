"""Whether two predictions are the same: labels equal, numbers within a tolerance."""

from __future__ import annotations

import numpy as np

from runtimes.protocol import Prediction

TOLERANCE = 1e-5
TINY = 1e-300


class Differs(Exception):
    """The compiled form answers otherwise; the message is a sentence without its full stop."""


def difference(original: Prediction, compiled: Prediction) -> float:
    """The largest difference between two predictions of the same rows.

    Of probabilities, the absolute one. Of other numbers, relative to the number or to the typical one of these rows,
    whichever is larger, and absolute below 1.

    Raises:
        Differs: a label differs, a number by more than the tolerance, or the outputs are of another kind.
    """
    if original.outputs.keys() != compiled.outputs.keys():
        raise Differs("The compiled form has other outputs")
    found = [_difference(values, compiled.outputs[name]) for name, values in original.outputs.items()]
    if (original.probabilities is None) != (compiled.probabilities is None):
        raise Differs("The compiled form has other outputs")
    if original.probabilities is not None and compiled.probabilities is not None:
        found.append(_of_numbers(original.probabilities, compiled.probabilities, 1.0, "probability"))
    return max(found, default=0.0)


def _difference(original: np.ndarray, compiled: np.ndarray) -> float:
    if original.shape != compiled.shape or (original.dtype.kind == "f") != (compiled.dtype.kind == "f"):
        raise Differs("The compiled form's outputs have another shape or type")
    if original.dtype.kind == "f":
        return _of_numbers(original, compiled, _scale(original), "number")
    if count := int(np.count_nonzero(original != compiled)):
        raise Differs(f"The compiled form gives another label in {count:,} of {original.size:,} sample rows")
    return 0.0


def _scale(values: np.ndarray) -> float:
    """What a difference of small numbers is measured by: the typical number, at most 1."""
    magnitudes = np.abs(values[np.isfinite(values) & (values != 0)])
    return float(min(1.0, np.median(magnitudes))) if magnitudes.size else 1.0


def _of_numbers(original: np.ndarray, compiled: np.ndarray, scale: float, kind: str) -> float:
    if original.shape != compiled.shape:
        raise Differs("The compiled form's outputs have another shape or type")
    one, other = original.astype(np.float64), compiled.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        gaps = np.abs(one - other) / np.maximum(np.abs(one), max(scale, TINY))
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    gaps = np.where(same, 0.0, np.where(np.isnan(gaps), np.inf, gaps))
    largest = float(gaps.max()) if gaps.size else 0.0
    if largest > TOLERANCE:
        count = int(np.count_nonzero(gaps > TOLERANCE))
        raise Differs(
            f"The compiled form gives another {kind} in {count:,} of {gaps.size:,} places, by up to {largest:.1e}"
        )
    return largest
