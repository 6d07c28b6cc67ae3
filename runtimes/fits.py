"""Fits seen from the client: what is asked, what is told meanwhile, and the report in the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, TypedDict

from pydantic import ValidationError

from runtimes.errors import ArtifactRejected, ProtocolFault, plain
from runtimes.limits import Limits
from runtimes.measured import Evaluation
from runtimes.protocol import Task
from runtimes.signature import Signature
from runtimes.work import Client, Work, checked, map_of, task_of, texts_of

MAX_METRICS = 100
DECLARED = ("architecture", "labels")


class Validation(TypedDict, total=False):
    """How a fit measures itself: `{"kind": "holdout", "fraction": 0.2, "seed": 7}`, `{"kind": "kfold", "folds": 5}`.

    importance: whether the columns' importance is measured, too; it is unless told.
    """

    kind: Literal["holdout", "kfold", "none"]
    fraction: float
    folds: int
    seed: int
    importance: bool


@dataclass(frozen=True)
class Progress:
    """How far a fit is: percent from 0 to 100."""

    percent: float
    stage: str
    metrics: dict[str, float] | None = None
    log: str = ""


@dataclass(frozen=True)
class FitReport:
    """What a fit gave; metrics are measured on rows that the model was not fitted on.

    declared: what the version's metadata needs beside the signature. claimed: metrics that a tenant's own program says.
    """

    metrics: dict[str, float]
    signature: Signature | None
    format: str
    libraries: dict[str, str]
    task: Task
    input_example: Any
    artifact_bytes: int
    artifact_name: str
    duration_s: float
    peak_memory_bytes: int
    evaluation: Evaluation = field(default_factory=Evaluation)
    declared: Mapping[str, Any] = field(default_factory=dict)
    claimed: dict[str, float] = field(default_factory=dict)


def fit(
    client: Client,
    order: Mapping[str, Any],
    dataset_fd: int,
    out: BinaryIO,
    limits: Limits,
    on_progress: Callable[[Progress], None],
    is_cancelled: Callable[[], bool],
) -> FitReport:
    """Fit, writing the artifact's bytes to `out` as they come, up to the limit."""
    started = time.monotonic()
    written = 0
    request = {"op": "fit", **order, "limits": limits.to_json()}
    with Work(client, request, dataset_fd, is_cancelled) as work:
        for frame in work.frames():
            if "artifact" in frame.header:
                written += frame.body.nbytes
                if written > limits.artifact_bytes:
                    raise ArtifactRejected("artifact_too_large", "The fitted model is larger than a model may be.")
                out.write(frame.body)
            else:
                on_progress(_progress(frame.header))
        result, usage = work.result, work.usage()
    return _report(result, usage, written, time.monotonic() - started)


def _progress(header: Mapping[str, Any]) -> Progress:
    percent = header.get("percent")
    is_number = isinstance(percent, int | float) and math.isfinite(percent)
    return Progress(
        min(max(float(percent), 0.0), 100.0) if is_number else 0.0,  # type: ignore[arg-type]
        plain(header.get("stage", ""), 80),
        numbers_of(header["metrics"]) if header.get("metrics") else None,
        plain(header.get("log", ""), 1000),
    )


def numbers_of(value: object) -> dict[str, float]:
    """The numbers among a map's values, by their names."""
    items = list(map_of(value).items())[:MAX_METRICS]
    return {plain(name, 80): float(number) for name, number in items if isinstance(number, int | float)}


def _report(result: Mapping[str, Any], usage: Mapping[str, Any], written: int, seconds: float) -> FitReport:
    with checked():
        signature = result.get("signature")
        return FitReport(
            metrics=numbers_of(result["metrics"]),
            signature=Signature.from_json(signature) if signature else None,
            format=plain(result["format"], 40),
            libraries=dict(usage["libraries"]) | texts_of(result.get("libraries") or {}),
            task=task_of(result["task"]),
            input_example=result["input_example"],
            artifact_bytes=written,
            artifact_name=plain(result["artifact_name"], 80),
            duration_s=seconds,
            peak_memory_bytes=int(usage["peak_bytes"]),
            evaluation=evaluation_of(result.get("evaluation") or {}),
            declared={name: value for name, value in map_of(result.get("declared") or {}).items() if name in DECLARED},
            claimed=numbers_of(result.get("claimed") or {}),
        )


def evaluation_of(value: object) -> Evaluation:
    """What a runner says that it measured, checked.

    Raises:
        ProtocolFault: it is no evaluation.
    """
    try:
        return Evaluation.model_validate(value)
    except ValidationError as error:
        raise ProtocolFault("A runner's evaluation is not what it must be.") from error
