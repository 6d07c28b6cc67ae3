"""Predicting a table seen from the client: it answers a runner's chunks, and gets the table with its predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from runtimes import arrays
from runtimes.batching import rows_of
from runtimes.errors import ArtifactRejected, ProtocolFault
from runtimes.limits import Limits
from runtimes.messages import Frame
from runtimes.protocol import Prediction
from runtimes.signature import Batch, Signature
from runtimes.work import Client, Work, checked

MOST_ROWS = 100_000
TABLE = "table"


@dataclass(frozen=True)
class Chunk:
    """Some rows of the table. read_fraction: how much of the file was read with them, from 0 to 1.

    asked: how many of the rows fit the model. batch: those; None where nobody is to be asked.
    """

    number: int
    rows: int
    asked: int
    batch: Batch | None
    read_fraction: float = 0.0


@dataclass(frozen=True)
class Answered:
    """What became of the rows that a chunk asked: predictions of some, in their order, and faults of the others by
    their place among those asked."""

    outputs: Mapping[str, np.ndarray]
    probabilities: np.ndarray | None
    faults: Mapping[int, str]

    @classmethod
    def of(cls, prediction: Prediction | None, faults: Mapping[int, str]) -> Answered:
        """The answer with one prediction for all rows that have no fault."""
        if prediction is None:
            return cls({}, None, faults)
        return cls(prediction.outputs, prediction.probabilities, faults)

    def to_frame(self) -> tuple[dict[str, Any], list[memoryview]]:
        """The answer as a frame's header and buffers."""
        table = {} if self.probabilities is None else {TABLE: self.probabilities}
        entries, buffers = arrays.encode({**self.outputs, **table})
        return {"arrays": entries, "faults": [[place, told] for place, told in self.faults.items()]}, list(buffers)

    @classmethod
    def from_frame(cls, header: Mapping[str, Any], body: memoryview) -> Answered:
        """The answer that such a frame holds."""
        found, _ = arrays.decode(header["arrays"], body)
        table = found.pop(TABLE, None)
        return cls(found, table, {int(place): str(told) for place, told in header["faults"]})


@dataclass(frozen=True)
class Tabulation:
    """How much there was."""

    rows: int
    chunks: int
    size_bytes: int


def tabulate(
    client: Client,
    *,
    table_fd: int,
    format_name: str,
    signature: Signature,
    probabilities: bool,
    known: int,
    answer: Callable[[Chunk], Answered],
    out: BinaryIO,
    limits: Limits,
    is_cancelled: Callable[[], bool],
) -> Tabulation:
    """Write the table with its predictions to `out`; `answer` is asked chunk by chunk, in the order of the rows.

    known: of so many chunks the rows are not sent, since their answers are there already.

    Raises:
        ModelError: the file is no table of this format, or lacks what the model takes.
        ArtifactRejected: the result is larger than `limits` allow. Cancelled, DeadlineExceeded, and what `answer` does.
    """
    asked = {"format": format_name, "signature": signature.to_json(), "probabilities": probabilities, "known": known}
    request = {"op": "tabulate", **asked, "limits": limits.to_json()}
    written = 0
    with Work(client, request, table_fd, is_cancelled) as work:
        for frame in work.frames():
            if TABLE in frame.header:
                written += frame.body.nbytes
                if written > limits.artifact_bytes:
                    raise ArtifactRejected(
                        "result_too_large", "The table with its predictions is larger than it may be."
                    )
                out.write(frame.body)
            else:
                work.answer(*answer(_chunk(frame)).to_frame())
        result, _ = work.result, work.usage()
    with checked():
        return Tabulation(int(result["rows"]), int(result["chunks"]), written)


def _chunk(frame: Frame) -> Chunk:
    header = frame.header
    with checked():
        number, rows, asked = (int(header[name]) for name in ("chunk", "rows", "asked"))
        read = min(max(float(header["read"]), 0.0), 1.0)
        if not 0 <= asked <= rows <= MOST_ROWS or number < 0:
            raise ValueError("impossible counts")
    if "arrays" not in header:
        return Chunk(number, rows, asked, None, read)
    batch = arrays.decode_batch(header, frame.body, max_rows=MOST_ROWS)
    if rows_of(batch) != asked:
        raise ProtocolFault("A runner's chunk has other rows than it says.")
    return Chunk(number, rows, asked, batch, read)
