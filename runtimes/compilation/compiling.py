"""A compilation, inside its runner: sample, convert, compare, send the graph back in pieces."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto

from runtimes import examples
from runtimes.compilation import trial
from runtimes.compilation.attempts import Attempt, NotCompilable
from runtimes.compilation.comparison import Differs
from runtimes.compilation.knowledge import Knowledge
from runtimes.compilation.sampling import Sampler
from runtimes.errors import ArtifactRejected, describe
from runtimes.formats.compiled import CompiledPredictor, Plan, session_of
from runtimes.messages import Connection
from runtimes.protocol import Predictor
from runtimes.signature import Batch, Signature

CHUNK_BYTES = 1 << 20
SHARE_FOR_REFERENCES = 0.3  # of the time: the original may be slow
SHARE_FOR_ATTEMPTS = 0.7
REASON_CHARS = 200


@dataclass(frozen=True)
class Compiled:
    """A compiled form that answers as the original does."""

    data: bytes
    opset: int
    precision: str
    outcome: trial.Outcome


@dataclass(frozen=True)
class Case:
    """What every attempt is measured by."""

    signature: Signature
    references: list[trial.Reference]
    one_row_seconds: float
    has_probabilities: bool


def compile_predictor(
    original: Predictor, options: Mapping[str, Any], seconds: float, channel: Connection
) -> dict[str, Any]:
    """The report of one compilation, its graph sent on the channel before; or why there is none."""
    started = time.monotonic()
    signature = Signature.from_json(options["signature"])
    module = getattr(original, "compiler", None)
    if module is None:
        return _refused("Models of this kind are not compiled")
    compiler = importlib.import_module(module)
    case = _case(
        original, signature, options, compiler.knowledge(original, signature), started + SHARE_FOR_REFERENCES * seconds
    )
    if case is None:
        return _refused("The original predicts none of the sample rows, so there is nothing to compare")
    found = _first_equal(compiler.attempts(original, signature), case, started + SHARE_FOR_ATTEMPTS * seconds)
    if isinstance(found, str):
        return _refused(found)
    for place in range(0, len(found.data), CHUNK_BYTES):
        channel.send({"artifact": True}, [memoryview(found.data)[place : place + CHUNK_BYTES]])
    return _report(found, case, time.monotonic() - started)


def _case(
    original: Predictor, signature: Signature, options: Mapping[str, Any], known: Knowledge | None, deadline: float
) -> Case | None:
    samples = Sampler(signature, known).samples(_example(options, signature))
    has_probabilities = signature.classes is not None and _has_probabilities(original)
    references = trial.references(original, samples, deadline, probabilities=has_probabilities)
    answered = [one.sample.batch for one in references if one.prediction is not None]
    if not answered:
        return None
    seconds = trial.one_row_seconds(original, answered[0], probabilities=has_probabilities)
    return Case(signature, references, seconds, has_probabilities)


def _has_probabilities(original: Predictor) -> bool:
    """Whether the original answers with probabilities; a network with classes always does."""
    model = getattr(original, "model", None)
    return hasattr(model, "predict_proba") or not hasattr(model, "predict")


def _example(options: Mapping[str, Any], signature: Signature) -> Batch | None:
    """The declared example rows, if they fit."""
    try:
        return examples.cast(examples.batch_from_example(options["input_example"]), signature)
    except (KeyError, ArtifactRejected):
        return None


def _first_equal(attempts: Iterable[Attempt], case: Case, deadline: float) -> Compiled | str:
    """The first attempt that answers as the original does, or why none does, in a sentence without its full stop."""
    reason, difference = "", ""
    for attempt in attempts:
        try:
            return _tried(attempt, case)
        except Differs as error:
            difference = difference or str(error)
        except Exception as error:  # converters and ONNX Runtime raise whatever they come across
            reason = reason or _reason(error)
        if time.monotonic() > deadline:
            return difference or reason or "There was no time for another attempt"
    return difference or reason


def _reason(error: Exception) -> str:
    if isinstance(error, NotCompilable):
        return str(error)
    if isinstance(error, ArtifactRejected):
        return error.reason.rstrip(".")
    return f"The conversion failed ({describe(error, REASON_CHARS)})"


def _tried(attempt: Attempt, case: Case) -> Compiled:
    model, plan = attempt()
    plan.write(model)
    data = model.SerializeToString()
    predictor = CompiledPredictor(session_of(data), plan, case.signature)
    outcome = trial.compare(predictor, case.references, case.one_row_seconds, probabilities=case.has_probabilities)
    return Compiled(data, _opset(model), _precision(plan), outcome)


def _opset(model: ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _precision(plan: Plan) -> str:
    return next((dtype for dtype in plan.dtypes if dtype.startswith("float")), plan.dtypes[0])


def _refused(reason: str) -> dict[str, Any]:
    return {"is_compiled": False, "reason": reason}


def _report(found: Compiled, case: Case, seconds: float) -> dict[str, Any]:
    return {
        "is_compiled": True,
        "max_difference": found.outcome.max_difference,
        "rows": found.outcome.rows,
        "opset": found.opset,
        "precision": found.precision,
        "one_row_us": found.outcome.one_row_seconds * 1e6,
        "original_one_row_us": case.one_row_seconds * 1e6,
        "seconds": seconds,
    }
