"""A few of the rows that versions were asked for, kept for a day, so that they can be compared with what a version was
measured on (`inference.drift`).

Of a version, a process takes one row a second at most, so a prediction costs a look at the clock and into a dictionary.
Only numbers are kept: a text is three bytes of its checksum, which tell whether it is a known value and nothing else.
"""

import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np

from common.background import Background
from inference.queued.valkey import valkey
from inference.served import Served
from runtimes.profiles import CELL_CHARS
from runtimes.signature import STRING, Batch, Field, Signature

EVERY_S = 1.0
KEEP_AFTER_S = 3.0
MOST_COLUMNS = 30
MOST_VERSIONS = 10_000  # that a process remembers
MOST_WAITING = 30  # rows of a version, while Valkey is away
SLOT_S, SLOT_COUNT, ROWS_A_SLOT = 4 * 3600, 6, 100
CODE_BITS = 0xFFFFFF  # what a float32 has exactly
SCALARS = (int, float, np.number, np.bool_)


class Samples:
    """The rows that this process has taken and Valkey does not have yet."""

    def __init__(self) -> None:
        self._keeping = Background("samples", self.keep, after_s=KEEP_AFTER_S)
        self.begin()

    def begin(self) -> None:
        """Begin with nothing: a fork leaves its parent's rows to the parent."""
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}
        self._rows: dict[str, list[bytes]] = {}

    def note(self, tenant: str, version: Served, batch: Batch, now: float) -> None:
        """Take a row of the batch if it is time to. tenant: its schema. now: on `time.monotonic()`'s clock."""
        if now >= self._next.get(version.pool_key, 0.0):
            self._take(tenant, version, batch, now)

    def keep(self) -> None:
        """Put what was taken into Valkey; while it is away, the newest rows wait."""
        with self._lock:
            taken, self._rows = self._rows, {}
        try:
            _keep(taken, time.time())
        except Exception:
            with self._lock:
                for key, rows in taken.items():
                    self._rows[key] = (rows + self._rows.get(key, []))[-MOST_WAITING:]
            raise

    def _take(self, tenant: str, version: Served, batch: Batch, now: float) -> None:
        if len(self._next) >= MOST_VERSIONS:
            self._next.clear()
        self._next[version.pool_key] = now + EVERY_S
        fields = sampled_fields(version.signature)
        if not isinstance(batch, dict) or not fields or not len(batch[fields[0].name]):
            return
        row = _numbers(batch, fields)
        with self._lock:
            if len(self._rows) < MOST_VERSIONS:
                self._rows.setdefault(_key(tenant, version.pk.hex), []).append(row)
        self._keeping.ask()


def sampled_fields(signature: Signature) -> Sequence[Field]:
    """The inputs whose values are kept, in the order in which they are."""
    return signature.inputs[:MOST_COLUMNS] if signature.layout == "columns" else ()


def code_of(text: str) -> float:
    """The number that stands for a text, or for the beginning of it that profiles have."""
    return float(crc32(text[:CELL_CHARS].encode(errors="replace")) & CODE_BITS)


def recent(tenant: str, versions: Mapping[str, Signature], now: float | None = None) -> dict[str, np.ndarray]:
    """The rows of the last day of each of these versions, (rows, sampled fields) float32, NaN where one was missing.

    tenant: its schema. versions: by the hexadecimal digits of their ids.
    """
    last = int(time.time() if now is None else now) // SLOT_S
    slots = range(last - SLOT_COUNT + 1, last + 1)
    with valkey().pipeline(transaction=False) as pipeline:
        for version in versions:
            for slot in slots:
                pipeline.lrange(f"{_key(tenant, version)}:{slot}", 0, -1)
        found: list[list[bytes]] = pipeline.execute()
    lists = {version: found[place * SLOT_COUNT :][:SLOT_COUNT] for place, version in enumerate(versions)}
    return {version: _read(kept, len(sampled_fields(versions[version]))) for version, kept in lists.items()}


def _read(slots: Sequence[Sequence[bytes]], width: int) -> np.ndarray:
    whole = [row for slot in slots for row in slot if len(row) == 4 * width]
    return np.frombuffer(b"".join(whole), np.float32).reshape(-1, width) if width else np.empty((0, 0), np.float32)


def _numbers(batch: Mapping[str, np.ndarray], fields: Sequence[Field]) -> bytes:
    """One row of the batch."""
    place = random.randrange(len(batch[fields[0].name]))  # noqa: S311 nobody gains by guessing it
    values = [_number(batch[field.name][place], field) for field in fields]
    with np.errstate(over="ignore"):
        return np.array(values, np.float32).tobytes()


def _number(value: Any, field: Field) -> float:
    if field.dtype == STRING:
        return code_of(value) if isinstance(value, str) else np.nan
    return float(value) if isinstance(value, SCALARS) else np.nan


def _keep(taken: Mapping[str, Sequence[bytes]], now: float) -> None:
    slot = int(now) // SLOT_S
    with valkey().pipeline(transaction=False) as pipeline:
        for key, rows in taken.items():
            name = f"{key}:{slot}"
            pipeline.lpush(name, *rows)
            pipeline.ltrim(name, 0, ROWS_A_SLOT - 1)
            pipeline.expire(name, SLOT_S * (SLOT_COUNT + 1))
        pipeline.execute()


def _key(tenant: str, version: str) -> str:
    return f"tenantry:{tenant}:sampled:{version}"


samples = Samples()
os.register_at_fork(after_in_child=samples.begin)
