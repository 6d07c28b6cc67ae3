"""What each worker says of itself every few seconds, into Valkey, so that a page need not ask them all and wait.

A worker that says nothing for `SILENT_AFTER_S` is gone, or hangs. What is kept is one hash with a field a worker; those
that have been silent for an hour are removed by who reads it.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from inference.queued.valkey import valkey

log = logging.getLogger(__name__)

KEY = "tenantry:workers"
REPORT_EVERY_S = 5.0
SILENT_AFTER_S = 20.0
FORGOTTEN_AFTER_S = 3600.0
MOST_WORKERS = 1_000


@dataclass(frozen=True)
class WorkerReport:
    """A worker as it was when it last said so. at, started_at: seconds since the epoch. resident_bytes: of the process
    that reports, without its children."""

    name: str
    queues: list[str]
    concurrency: int
    pool: str
    pid: int
    started_at: float
    active: int
    done: int
    resident_bytes: int
    at: float

    @property
    def is_silent(self) -> bool:
        """Whether it has said nothing for too long."""
        return time.time() - self.at > SILENT_AFTER_S


_is_over = threading.Event()


def begin(consumer: Any) -> None:
    """Report the Celery worker of this consumer from a thread of its own until it ends."""
    told: dict[str, Any] = {
        "name": str(consumer.hostname),
        "queues": sorted(consumer.app.amqp.queues.consume_from),
        "concurrency": int(consumer.controller.concurrency or 0),
        "pool": type(consumer.pool).__module__.rpartition(".")[2],
        "pid": os.getpid(),
        "started_at": time.time(),
    }
    threading.Thread(target=_report_on, args=(told,), name="worker-reports", daemon=True).start()


def end(name: str) -> None:
    """Take a worker that ends off the list; where Valkey is away, it will be forgotten after a while."""
    _is_over.set()
    with suppress(RedisError):
        valkey().hdel(KEY, name)


def _report_on(told: Mapping[str, Any]) -> None:
    is_failing = False
    while not _is_over.is_set():
        try:
            keep(_report(told))
            is_failing = False
        except Exception:  # Valkey may be away for a while: the next report may have better luck
            if not is_failing:
                log.warning("worker_report_failed", exc_info=True)
            is_failing = True
        _is_over.wait(REPORT_EVERY_S)


def _report(told: Mapping[str, Any]) -> WorkerReport:
    from celery.worker import state  # of workers alone: importing it takes time that other processes need not spend

    return WorkerReport(
        **told,
        active=len(state.active_requests),
        done=int(state.all_total_count[0]),
        resident_bytes=_resident_bytes(),
        at=time.time(),
    )


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def keep(report: WorkerReport) -> None:
    """Have this report in place of the worker's earlier one."""
    valkey().hset(KEY, report.name, json.dumps(asdict(report)))


def all_reports() -> list[WorkerReport]:
    """The last report of each worker, by name; those that have long been silent are forgotten."""
    kept: Mapping[bytes, bytes] = valkey().hgetall(KEY)  # type: ignore[assignment]  # the client is no async one
    found = [WorkerReport(**json.loads(text)) for text in kept.values()]
    gone = [one.name for one in found if time.time() - one.at > FORGOTTEN_AFTER_S]
    if gone:
        valkey().hdel(KEY, *gone)
    return sorted((one for one in found if one.name not in gone), key=lambda one: one.name)[:MOST_WORKERS]
