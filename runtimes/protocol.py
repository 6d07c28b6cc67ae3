"""What a format must offer: a Runtime recognises and loads, a Predictor predicts. A new format is one new file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from runtimes.bundle import Files
from runtimes.signature import Batch, Signature

Task = Literal["classification", "regression", "detection", "other"]
OnStage = Callable[[str], None]
MAX_OUTPUTS = 256


@dataclass(frozen=True)
class Source:
    """One artifact as a runner sees it: its files, the one that holds the model, and what was declared about it."""

    bundle: Files
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """The answer to one batch.

    outputs: name -> (n, ...) arrays, strings as object arrays of str or None.
    probabilities: (n, classes) in the order of the signature's classes, when they were asked for.
    """

    outputs: dict[str, np.ndarray]
    probabilities: np.ndarray | None = None


@dataclass(frozen=True)
class Findings:
    """What an inspection learned by loading the artifact and predicting a sample row."""

    format: str
    task: Task
    signature: Signature
    type_name: str
    made_with: dict[str, str]
    warnings: list[str]
    load_seconds: float

    def to_json(self) -> dict[str, Any]:
        """The findings as plain values, for a frame."""
        return {
            "format": self.format,
            "task": self.task,
            "signature": self.signature.to_json(),
            "type_name": self.type_name,
            "made_with": self.made_with,
            "warnings": self.warnings,
            "load_seconds": self.load_seconds,
        }


class Predictor(Protocol):
    """A loaded model."""

    is_batchable: bool
    """Whether rows are independent, so that several requests may be predicted as one batch."""

    def predict(self, batch: Batch, *, probabilities: bool) -> Prediction:
        """Predict every row of a batch that fits the signature; raises whatever the model raises."""


class Runtime(Protocol):
    """One artifact format."""

    name: str
    library_set: str

    def load(self, source: Source) -> Predictor:
        """The model, ready to predict.

        Raises:
            ArtifactRejected: with the reason; any other exception is the artifact's own and is reported as such.
        """

    def inspect(self, source: Source, on_stage: OnStage) -> Findings:
        """What the artifact is, found by loading it and predicting a sample row.

        Raises:
            ArtifactRejected: it cannot be served as it is.
        """
