"""Mirroring: the shadow of what serves is asked the same, after the answer, and both answers are compared.

Nothing here is waited for: a request is put into a bounded queue, or counted as dropped. What is seen is kept in memory
for some seconds, then added to the row of the activation that has the shadow.
"""

import logging
import os
import queue
import threading
import time
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

import numpy as np
from django.db import connection, transaction
from django.utils import timezone

from common.errors import PlatformError
from inference.comparison import Tally, compare
from inference.decoding import Decoded
from inference.models import ShadowReport
from inference.routing import Route
from models_registry.history import routing_of
from models_registry.models import Deployment
from runtimes.client import Prediction
from runtimes.signature import Batch
from tenants.models import Tenant
from tenants.scope import current_tenant, tenant_scope

log = logging.getLogger(__name__)

THREADS = 2
MOST_WAITING, MOST_WAITING_EACH = 128, 32  # requests, in this process and of one tenant
MOST_WAITING_BYTES = 64 << 20
PATIENCE_S = 30.0
KEEP_EVERY_S = 2.0
REPORTS_KEPT = 20  # of a model


class Ask(Protocol):
    """What asks a route: `lanes.predict` without the shadow's part."""

    def __call__(self, route: Route, decoded: Decoded, *, probabilities: bool, deadline: float) -> Prediction:
        """The prediction of a checked batch by the route's version."""


@dataclass(frozen=True)
class Watched:
    """Whose answers are compared: shadow is the number of the version that is asked beside."""

    tenant: Tenant
    model_name: str
    shadow: int

    @property
    def key(self) -> tuple[str, str, int]:
        """What tallies are kept by."""
        return self.tenant.uuid.hex, self.model_name, self.shadow


@dataclass(frozen=True)
class Mirrored:
    """A request that was answered, to be asked again."""

    watched: Watched
    route: Route
    decoded: Decoded
    answered: Prediction
    answered_s: float
    ask: Ask
    size_bytes: int


class Mirror:
    """This process's mirror: what waits, what was seen and is not kept yet, and the threads that work on it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: queue.Queue[Mirrored] = queue.Queue()
        self._waiting_each: dict[str, int] = {}
        self._waiting_bytes = 0
        self._seen: dict[tuple[str, str, int], tuple[Watched, Tally]] = {}
        self._has_seen = threading.Event()
        self._is_started = False

    def put(self, one: Mirrored) -> bool:
        """Have a request mirrored some time; whether there was room."""
        tenant = one.watched.tenant.uuid.hex
        with self._lock:
            self._start()
            each = self._waiting_each.get(tenant, 0)
            is_full = each >= MOST_WAITING_EACH or self._waiting.qsize() >= MOST_WAITING
            if is_full or self._waiting_bytes + one.size_bytes > MOST_WAITING_BYTES:
                self._note(one.watched, Tally(dropped=1))
                return False
            self._waiting_each[tenant] = each + 1
            self._waiting_bytes += one.size_bytes
            self._waiting.put(one)
        return True

    def settle(self) -> None:
        """Return once everything that waits now is compared and kept."""
        self._waiting.join()
        self._keep()

    def _start(self) -> None:
        if self._is_started:
            return
        self._is_started = True
        for number in range(THREADS):
            threading.Thread(target=self._work, name=f"shadow-{number}", daemon=True).start()
        threading.Thread(target=self._keep_always, name="shadow-reports", daemon=True).start()

    def _work(self) -> None:
        while True:
            one = self._waiting.get()
            try:
                tally = _asked(one)
                with self._lock:
                    self._note(one.watched, tally)
            except Exception:  # the thread must outlive whatever it meets
                log.exception("shadow_broke", extra={"model": one.watched.model_name})
            finally:
                with self._lock:
                    self._leave(one)
                self._waiting.task_done()
                connection.close()

    def _leave(self, one: Mirrored) -> None:
        tenant = one.watched.tenant.uuid.hex
        self._waiting_bytes -= one.size_bytes
        self._waiting_each[tenant] -= 1
        if not self._waiting_each[tenant]:
            del self._waiting_each[tenant]

    def _note(self, watched: Watched, tally: Tally) -> None:
        known = self._seen.setdefault(watched.key, (watched, Tally()))
        known[1].add(tally)
        self._has_seen.set()

    def _keep_always(self) -> None:
        while self._has_seen.wait():
            time.sleep(KEEP_EVERY_S)
            self._keep()

    def _keep(self) -> None:
        with self._lock:
            seen, self._seen = self._seen, {}
            self._has_seen.clear()
        for watched, tally in seen.values():
            try:
                with tenant_scope(watched.tenant):
                    keep(watched, tally)
            except Exception:  # the tenant may be gone by now, and others' reports come next
                log.warning("shadow_report_lost", extra={"model": watched.model_name}, exc_info=True)
        connection.close()


@cache
def _mirror_of(pid: int) -> Mirror:
    return Mirror()


def mirror() -> Mirror:
    """This process's mirror; a fork begins with an empty one."""
    return _mirror_of(os.getpid())


def watch(route: Route, decoded: Decoded, answered: Prediction, answered_s: float, ask: Ask) -> None:
    """Have the shadow of a route asked the same as was just answered, if it has one; returns at once.

    ask: what asks a route, called later and in another thread with the route of the shadow.
    """
    if route.shadow is None:
        return
    watched = Watched(current_tenant(), route.model_name, route.shadow.number)
    beside = replace(route, version=route.shadow, shadow=None)
    size_bytes = _size(decoded.batch) + _size(answered.outputs)
    mirror().put(Mirrored(watched, beside, decoded, answered, answered_s, ask, size_bytes))


def _size(batch: Batch) -> int:
    return sum(map(_bytes_of, batch.values() if isinstance(batch, dict) else (batch,)))


def _bytes_of(array: np.ndarray) -> int:
    texts = array.ravel().tolist() if array.dtype.kind == "O" else ()
    return array.nbytes + sum(len(text) for text in texts if text is not None)


def _asked(one: Mirrored) -> Tally:
    """What asking the shadow tells."""
    started = time.monotonic()
    try:
        with tenant_scope(one.watched.tenant):
            found = one.ask(one.route, one.decoded, probabilities=False, deadline=started + PATIENCE_S)
    except PlatformError as error:
        return Tally(failed=1, last_failure=f"{error.code}: {error.message}"[:500])
    took_s = time.monotonic() - started
    tally = compare(one.answered, found, one.decoded.batch, timezone.now().isoformat())
    tally.answered_s, tally.shadow_s, tally.slowest_shadow_s = one.answered_s, took_s, took_s
    return tally


@transaction.atomic
def keep(watched: Watched, tally: Tally) -> None:
    """Add what was seen to the report of the activation that serves, if it has this shadow still."""
    found = Deployment.objects.select_related("activation").filter(model__name=watched.model_name).first()
    shadow = routing_of(found.activation).shadow if found else None
    if found is None or shadow is None or shadow.version != watched.shadow:
        return
    report, is_new = ShadowReport.objects.select_for_update().get_or_create(
        activation=found.activation, defaults={"version_number": watched.shadow}
    )
    whole = Tally.from_json(report.tally)
    whole.add(tally)
    report.tally = whole.to_json()
    report.save(update_fields=["tally", "updated_at"])
    if is_new:
        reports = ShadowReport.objects.filter(activation__model=found.model_id).order_by("-activation__number")
        ShadowReport.objects.filter(pk__in=list(reports.values_list("pk", flat=True)[REPORTS_KEPT:])).delete()
