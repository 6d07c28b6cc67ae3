"""What a predictor returned, as named arrays; and scores as classes. numpy only: every format uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from runtimes.errors import ArtifactRejected, describe
from runtimes.protocol import MAX_OUTPUTS, Prediction, Predictor
from runtimes.signature import Batch, ClassName

PREDICTION = "prediction"
SUM_TOLERANCE = 1e-3


def named_arrays(value: Any, name: str = PREDICTION) -> dict[str, np.ndarray]:
    """An array, a frame, or a map or tuple (of names or without) of arrays, as arrays by name."""
    if hasattr(value, "columns") and hasattr(value, "to_numpy"):  # a DataFrame, without importing pandas
        return {str(column): plain_array(value[column]) for column in value.columns}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): plain_array(part) for key, part in value.items()}
    if isinstance(value, tuple) and len(value) > 1:
        return {f"output_{place}": plain_array(part) for place, part in enumerate(value)}
    return {name: plain_array(value[0] if isinstance(value, tuple) else value)}


def plain_array(value: Any) -> np.ndarray:
    """The values as a numeric array, or as an object array of strings."""
    array = np.asarray(value.toarray() if hasattr(value, "toarray") else value)
    if array.dtype.kind in "fiub":
        return array if array.dtype.itemsize <= 8 else array.astype(np.float64)
    return text_or_numbers(array.ravel().tolist(), array.shape)


def text_or_numbers(values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Python values as one array: numeric if all are numbers, else strings with None for what is missing."""
    if values and all(isinstance(value, int | float) for value in values):
        numbers = np.array(values)
        if numbers.dtype.kind in "fiub":
            return numbers.reshape(shape)
    array = np.empty(len(values), dtype=object)
    array[:] = [None if value is None or value != value else _text(value) for value in values]
    return array.reshape(shape)


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def prove(predictor: Predictor, sample: Batch, told: str, *, probabilities: bool, is_declared: bool) -> Prediction:
    """What the model predicts for a sample; the proof that it takes what its signature says.

    told: who says what the model takes, for the sentence of a rejection.

    Raises:
        ArtifactRejected: it cannot predict the sample, or does not predict one value for each row.
    """
    try:
        prediction = predictor.predict(sample, probabilities=probabilities)
    except Exception as error:
        code = "signature_mismatch" if is_declared else "signature_needed"
        told = "the declared signature" if is_declared else told
        reason = f"A sample row of {told} could not be predicted ({describe(error, 300)})."
        raise ArtifactRejected(code, reason) from error
    rows = len(next(iter(sample.values()))) if isinstance(sample, dict) else len(sample)
    if not prediction.outputs or any(values.shape[:1] != (rows,) for values in prediction.outputs.values()):
        raise ArtifactRejected("wrong_output", "The model does not predict one value for each row.")
    if len(prediction.outputs) > MAX_OUTPUTS:
        reason = (
            f"The model gives {len(prediction.outputs)} outputs; at most {MAX_OUTPUTS} are taken, or one of arrays."
        )
        raise ArtifactRejected("wrong_output", reason)
    return prediction


class ClassTable:
    """Turns a classifier's scores into class names and probabilities.

    ends_in_sigmoid: of a single score for two classes, whether it is the second one's probability already.
    """

    def __init__(self, classes: tuple[ClassName, ...], *, ends_in_sigmoid: bool = False) -> None:
        self._ends_in_sigmoid = ends_in_sigmoid
        self._names = text_or_numbers(list(classes), (len(classes),))

    @staticmethod
    def fits(scores: np.ndarray, count: int) -> bool:
        """Whether scores of this shape tell so many classes apart: one score each, or one score for two."""
        return (scores.ndim == 2 and scores.shape[1] == count) or (count == 2 and scores.shape[1:] in ((), (1,)))

    def prediction(self, outputs: dict[str, np.ndarray], *, probabilities: bool) -> Prediction:
        """The named class of each row by its first output's scores; further outputs stay as they are."""
        first, *others = outputs
        table = self.probabilities(outputs[first])
        named = {PREDICTION: self._names[table.argmax(axis=1)], **{name: outputs[name] for name in others}}
        return Prediction(named, table if probabilities else None)

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """(n, classes) probabilities: the scores themselves where they are some, else their softmax or sigmoid."""
        wide = scores.astype(np.float64)
        if wide.ndim == 1 or wide.shape[1] == 1:
            positive = wide.reshape(-1) if self._ends_in_sigmoid else _sigmoid(wide.reshape(-1))
            return np.stack([1 - positive, positive], axis=1)
        return wide if _are_probabilities(wide) else _softmax(wide)


def _are_probabilities(table: np.ndarray) -> bool:
    return bool((table >= 0).all() and np.allclose(table.sum(axis=1), 1, atol=SUM_TOLERANCE))


def _sigmoid(values: np.ndarray) -> np.ndarray:
    positive: np.ndarray = 1 / (1 + np.exp(-values.clip(-700, 700)))
    return positive


def _softmax(scores: np.ndarray) -> np.ndarray:
    shifted: np.ndarray = np.exp(scores - scores.max(axis=1, keepdims=True))
    table: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return table
