"""Where a model's traffic goes: the routing state that an activation holds beside its version, as one value.

Plain values without a query: whoever holds a `Routing` can choose who answers a request.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from common.errors import Invalid

WHOLE = 100  # percent
MOST_SHARES = 10
LANES = ("auto", "direct", "queue")


@dataclass(frozen=True)
class Share:
    """A version, and the percent of requests that it gets: from 1 to 100."""

    version: int
    percent: int

    def to_json(self) -> dict[str, int]:
        """The share as JSON values."""
        return {"version": self.version, "percent": self.percent}


@dataclass(frozen=True)
class Routing:
    """Which versions of a model answer, and how they are asked.

    split: percents that sum to 100; empty where nothing serves.
    shadow: asked for the same as it says percent of requests, beside who answers; its answers go nowhere.
    lane: auto, direct or queue; None for the tenant's or the platform's own.
    is_pinned: every routed version stays in memory. limits: by the names of `runtimes.limits.Limits`.
    """

    split: tuple[Share, ...] = ()
    shadow: Share | None = None
    lane: str | None = None
    is_pinned: bool = False
    limits: Mapping[str, int | float] = field(default_factory=dict)

    @property
    def version(self) -> int | None:
        """The version that is said to serve: the one with the largest share, the first of equals."""
        return max(self.split, key=lambda share: share.percent).version if self.split else None

    @property
    def versions(self) -> tuple[int, ...]:
        """Every version that requests reach: who answers, then the shadow."""
        shadows = (self.shadow.version,) if self.shadow else ()
        return (*(share.version for share in self.split), *shadows)

    def choose(self, routing_key: str | None = None, salt: str = "") -> int:
        """The version that answers a request: the same for the same key while the split stays, else by chance.

        When percents move between versions, only the keys that have to move do. salt: such as the model's name, so that
        one customer is not in the small share of every model.
        """
        if len(self.split) == 1:
            return self.split[0].version
        point = _point(salt, routing_key) if routing_key else random.randrange(WHOLE)  # noqa: S311  # no secret
        for share in self.split:
            point -= share.percent
            if point < 0:
                return share.version
        raise LookupError("nothing serves")

    def is_shadowed(self) -> bool:
        """Whether this request is to be mirrored, by chance where the shadow sees only a sample."""
        if self.shadow is None:
            return False
        return self.shadow.percent == WHOLE or random.randrange(WHOLE) < self.shadow.percent  # noqa: S311

    def serving(self, version: int) -> Self:
        """The same with all requests for this version; it is nobody's shadow then."""
        shadow = None if self.shadow and self.shadow.version == version else self.shadow
        return replace(self, split=(Share(version, WHOLE),), shadow=shadow)

    def emptied(self) -> Self:
        """The same with nothing that serves, is mirrored or pinned; lane and limits are for whoever is next."""
        return replace(self, split=(), shadow=None, is_pinned=False)

    def checked(self) -> Self:
        """This routing, if it makes sense.

        Raises:
            Invalid: naming the field.
        """
        numbers = [share.version for share in self.split]
        if self.split and sum(share.percent for share in self.split) != WHOLE:
            raise _wrong("split", f"The percents of a split sum to {WHOLE}.")
        if len(set(numbers)) != len(numbers) or len(numbers) > MOST_SHARES:
            raise _wrong("split", f"A split names each version once, and {MOST_SHARES} at most.")
        if self.shadow and self.shadow.version in numbers:
            raise _wrong("shadow", f"Version {self.shadow.version} answers requests itself; no version shadows itself.")
        if not self.split and (self.shadow or self.is_pinned):
            raise _wrong("split", "Nothing serves: say in split which version is to.")
        return self

    def to_json(self) -> dict[str, Any]:
        """What an activation keeps beside its version: only what is set."""
        said: dict[str, Any] = {}
        if len(self.split) > 1:
            said["split"] = [share.to_json() for share in self.split]
        if self.shadow:
            said["shadow"] = self.shadow.to_json()
        if self.lane:
            said["lane"] = self.lane
        if self.is_pinned:
            said["pinned"] = True
        if self.limits:
            said["limits"] = dict(self.limits)
        return said

    @classmethod
    def from_json(cls, kept: Mapping[str, Any], version: int | None) -> Self:
        """The routing that an activation holds, with its own version where it has no split."""
        return cls(
            split=_shares(kept.get("split") or ([{"version": version, "percent": WHOLE}] if version else [])),
            shadow=Share(**kept["shadow"]) if kept.get("shadow") else None,
            lane=kept.get("lane"),
            is_pinned=bool(kept.get("pinned")),
            limits=dict(kept.get("limits") or {}),
        )


def _shares(kept: Sequence[Mapping[str, int]]) -> tuple[Share, ...]:
    return tuple(Share(one["version"], one["percent"]) for one in kept)


def _point(salt: str, routing_key: str) -> int:
    """Where on the 100 percent a key lies: the same on every machine."""
    digest = hashlib.blake2b(f"{salt}\0{routing_key}".encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % WHOLE


def _wrong(name: str, sentence: str) -> Invalid:
    return Invalid(sentence, fields={name: sentence})
