"""Predicting a table in a file: rows leave this confined runner a chunk at a time, predictions come in, and the table
with its predictions goes out, in memory that does not grow with the file.

    {chunk, rows, asked, read, arrays}  ──>  {outputs, probabilities, faults}   the rows that fit, and their predictions
    {table}                             ──>                                     a piece of the result

The first `known` chunks are answered by who has their predictions already; their rows do not leave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from runtimes import arrays
from runtimes.bundle import FileSlice
from runtimes.conforming import Conformed, conform
from runtimes.errors import plain
from runtimes.messages import Connection
from runtimes.signature import STRING, Signature
from runtimes.table_copies import NewColumn, Piece, TableCopy, cells, table_copy

ROWS = 2_000
MOST_BYTES = 3 << 20  # of a chunk, and of a piece of the result; the other side takes a little more
ERROR = "error"
TABLE = "table"
FAULT_CHARS = 300


def tabulate(order: Mapping[str, Any], channel: Connection, table_fd: int) -> dict[str, Any]:
    """How many rows there were; the chunks and the result have gone over the channel.

    Raises:
        InvalidDataset: the file is no such table, or lacks what the model takes.
    """
    signature = Signature.from_json(order["signature"])
    sender = _Sender(channel)
    file, added = FileSlice.whole(table_fd), columns_for(signature, is_probable=bool(order.get("probabilities")))
    copy = table_copy(file, str(order["format"]), sender.write, added)
    number = rows = 0
    for piece in copy.pieces(ROWS):
        for part, conformed in _parts(piece, signature):
            known = number < int(order.get("known", 0))
            _send_chunk(channel, number, len(part.frame), conformed, copy.read_fraction, is_known=known)
            answer = channel.receive()
            copy.append(part.original, _values(answer.header, answer.body, conformed, len(part.frame), signature, copy))
            number, rows = number + 1, rows + len(part.frame)
    copy.close()
    sender.flush()
    return {"rows": rows, "chunks": number}


def columns_for(signature: Signature, *, is_probable: bool) -> list[NewColumn]:
    """The columns that a result has besides the table's own: outputs, probabilities of the classes, the error."""
    outputs = [NewColumn(field.name, field.dtype if len(field.shape) == 1 else STRING) for field in signature.outputs]
    classes = signature.classes if is_probable and signature.classes else ()
    table = [NewColumn(f"probability_{name}", "float64") for name in classes]
    return [*(outputs or [NewColumn("prediction", STRING)]), *table, NewColumn(ERROR, STRING)]


def _parts(piece: Piece, signature: Signature) -> Iterator[tuple[Piece, Conformed]]:
    """The piece in parts that are small enough to send: the same ones whenever the file is read."""
    conformed = conform(piece.frame, signature)
    _, buffers = arrays.encode_batch(conformed.batch)
    rows, size = len(piece.frame), sum(len(buffer) for buffer in buffers)
    if size <= MOST_BYTES or rows <= 1:
        yield piece, conformed
        return
    step = max(1, rows * MOST_BYTES // (2 * size))
    for start in range(0, rows, step):
        yield from _parts(piece.cut(slice(start, min(start + step, rows))), signature)


def _send_chunk(
    channel: Connection, number: int, rows: int, conformed: Conformed, read: float, *, is_known: bool
) -> None:
    asked = rows - len(conformed.faults)
    header: dict[str, Any] = {"chunk": number, "rows": rows, "asked": asked, "read": read}
    if is_known or not asked:
        channel.send(header)
    else:
        fields, buffers = arrays.encode_batch(conformed.batch)
        channel.send({**header, **fields}, buffers)


def _values(
    header: Mapping[str, Any],
    body: memoryview,
    conformed: Conformed,
    rows: int,
    signature: Signature,
    copy: TableCopy,
) -> dict[str, list[Any]]:
    """The values of the new columns for a chunk's rows, None where a row has an error instead."""
    asked = [place for place in range(rows) if place not in conformed.faults]
    refused = {asked[place]: plain(sentence, FAULT_CHARS) for place, sentence in header["faults"]}
    predicted = [place for place in asked if place not in refused]
    found, _ = arrays.decode(header["arrays"], body, rows=len(predicted))
    errors = {**conformed.faults, **refused}
    values: dict[str, list[Any]] = {
        name: _spread(cells(column), predicted, rows) for name, column in _by_column(found, signature).items()
    }
    empty = [None] * rows
    return {key: values.get(key, empty) for key in copy.keys} | {ERROR: [errors.get(place) for place in range(rows)]}


def _by_column(found: Mapping[str, np.ndarray], signature: Signature) -> dict[str, np.ndarray]:
    """Each output by its name, and each class's probabilities by its column's."""
    columns = {name: column for name, column in found.items() if name != TABLE}
    if not signature.outputs and columns:
        columns = {"prediction": next(iter(columns.values()))}
    table = found.get(TABLE)
    if table is not None and table.ndim == 2:
        names = [f"probability_{name}" for name in signature.classes or ()]
        columns |= {name: table[:, place] for place, name in enumerate(names) if place < table.shape[1]}
    return columns


def _spread(values: list[Any], places: list[int], rows: int) -> list[Any]:
    spread: list[Any] = [None] * rows
    for place, value in zip(places, values, strict=True):
        spread[place] = value
    return spread


class _Sender:
    """Sends the result in pieces that are neither tiny nor too large."""

    def __init__(self, channel: Connection) -> None:
        self._channel, self._waiting, self._bytes = channel, [b""], 0

    def write(self, data: bytes) -> None:
        """Send this once there is enough."""
        self._waiting.append(data)
        self._bytes += len(data)
        if self._bytes >= MOST_BYTES // 2:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        whole = memoryview(b"".join(self._waiting))
        for start in range(0, len(whole), MOST_BYTES):
            self._channel.send({TABLE: True}, [whole[start : start + MOST_BYTES]])
        self._waiting, self._bytes = [], 0
