"""What predictions cost, as this process has seen it lately: by it, `auto` chooses a lane."""

import threading
import uuid
from collections import OrderedDict
from functools import cache

from runtimes.signature import Batch

HEAVY_S = 0.25  # a prediction that takes longer holds a web thread and a processor for longer than others should wait
HEAVY_BYTES = 2 << 20
WEIGHT = 0.2  # of the newest measurement
VERSIONS_KEPT = 2_000


class Costs:
    """The seconds that predictions of a version take, smoothed, for the versions asked last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: OrderedDict[uuid.UUID, float] = OrderedDict()

    def note(self, version_id: uuid.UUID, seconds: float) -> None:
        """Count one prediction."""
        with self._lock:
            known = self._seconds.pop(version_id, seconds)
            self._seconds[version_id] = known + WEIGHT * (seconds - known)
            if len(self._seconds) > VERSIONS_KEPT:
                self._seconds.popitem(last=False)

    def is_heavy(self, version_id: uuid.UUID, batch: Batch) -> bool:
        """Whether a prediction of this batch is better left to a worker."""
        return self._seconds.get(version_id, 0.0) > HEAVY_S or size_of(batch) > HEAVY_BYTES


def size_of(batch: Batch) -> int:
    """About how many bytes a batch has; its texts count as their pointers."""
    return sum(column.nbytes for column in batch.values()) if isinstance(batch, dict) else batch.nbytes


@cache
def costs() -> Costs:
    """The process's own."""
    return Costs()
