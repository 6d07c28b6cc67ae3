"""A compilation seen from the client: what is asked, and the verdict, which never is a failure of the version."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Literal

from runtimes.errors import (
    ArtifactRejected,
    DeadlineExceeded,
    ModelError,
    ProtocolFault,
    RunnerDied,
    plain,
)
from runtimes.limits import Limits
from runtimes.work import Client, Work, checked

NOT_NEEDED = "An ONNX file is served as it is."


@dataclass(frozen=True)
class Compilation:
    """Whether a version has a compiled form, and how that compares.

    sentence: the verdict in words. max_difference: of numbers, over `rows` sample rows. precision: of the graph's
    numbers. one_row_us, original_one_row_us: microseconds that one row took in the runner, in either form.
    """

    state: Literal["compiled", "not_compiled"]
    sentence: str
    max_difference: float | None = None
    rows: int | None = None
    seconds: float | None = None
    opset: int | None = None
    precision: str | None = None
    size_bytes: int | None = None
    one_row_us: float | None = None
    original_one_row_us: float | None = None

    @property
    def is_compiled(self) -> bool:
        """Whether there is a compiled form."""
        return self.state == "compiled"

    def to_json(self) -> dict[str, Any]:
        """The verdict as JSON values; what is not known is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def not_compiled(reason: str) -> Compilation:
    """The verdict that a version is served from its own library."""
    return Compilation("not_compiled", f"Not compiled. {_ended(plain(reason, 400))}")


def _ended(text: str) -> str:
    return text if text.endswith((".", "…")) else f"{text}."


def compile_artifact(
    client: Client,
    bundle_fd: int,
    order: Mapping[str, Any],
    out: BinaryIO,
    limits: Limits,
    on_stage: Callable[[str], None],
    is_cancelled: Callable[[], bool],
) -> Compilation:
    """Compile, writing the graph's bytes to `out` as they come, up to the limit.

    Raises:
        Cancelled, HostUnavailable, PoolFull, ConfinementUnavailable: these say nothing of the artifact.
    """
    request = {"op": "compile", **order, "limits": limits.to_json()}
    written = 0
    try:
        with Work(client, request, bundle_fd, is_cancelled) as work:
            for frame in work.frames():
                if "artifact" not in frame.header:
                    on_stage(plain(frame.header.get("stage", ""), 80))
                    continue
                written += frame.body.nbytes
                if written > limits.artifact_bytes:
                    return not_compiled("The compiled form is larger than a model may be.")
                out.write(frame.body)
            result = work.result
            work.usage()
        return _verdict(result, written)
    except (ArtifactRejected, ModelError, DeadlineExceeded, ProtocolFault, RunnerDied) as fault:
        return not_compiled(fault.message)


def _verdict(result: Mapping[str, Any], written: int) -> Compilation:
    with checked():
        if result["is_compiled"] is not True:
            return not_compiled(str(result["reason"]))
        rows, difference = int(result["rows"]), _number(result["max_difference"])
        if not written:
            raise ProtocolFault("A runner sent no compiled form.")
        return Compilation(
            "compiled",
            f"Compiled, max difference {difference:.0e} on {rows:,} rows."
            if difference
            else f"Compiled, no difference on {rows:,} rows.",
            difference,
            rows,
            round(_number(result["seconds"]), 3),
            int(result["opset"]),
            plain(result["precision"], 20),
            written,
            round(_number(result["one_row_us"]), 1),
            round(_number(result["original_one_row_us"]), 1),
        )


def _number(value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("not a finite number")
    return float(value)
