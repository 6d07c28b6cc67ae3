"""What one runner may use, and what one reply may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """The budget of one model version.

    memory_bytes: address space on top of what the warm zygote already maps.
    call_seconds: wall time after which a runner that answers nothing is hung and gets killed.
    load_seconds: wall time for loading; an inspection may take it twice (load, then sample predictions).
    cpu_seconds, fit_seconds: CPU and wall time of one-shot work (a fit; an inspection uses the CPU bound only).
    compile_seconds: CPU and wall time of a compilation.
    reply_bytes, rows: of one call. artifact_bytes: of what a fit or a compilation sends back.
    """

    memory_bytes: int = 2 * GIB
    call_seconds: float = 10.0
    load_seconds: float = 60.0
    reply_bytes: int = 64 * MIB
    rows: int = 100_000
    cpu_seconds: int = 600
    fit_seconds: float = 3600.0
    compile_seconds: float = 120.0
    artifact_bytes: int = GIB

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be positive")

    def to_json(self) -> dict[str, int | float]:
        """The limits as a map, for a frame."""
        return asdict(self)

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Limits:
        """The limits that a map describes; names that this version does not know are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in message.items() if name in known})
