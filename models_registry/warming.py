"""Having versions in memory before requests are sent to them, and what follows a switch on this machine."""

import time
from collections.abc import Mapping, Sequence

from django.conf import settings
from django.db import connection, transaction

from common.errors import Conflict, PlatformError, Unavailable
from models_registry.eviction import end_once_committed, pin_once_committed
from models_registry.loading import load_request, pool_key
from models_registry.models import ModelVersion, RegisteredModel
from models_registry.routing import Routing
from runtimes.client import HostClient
from runtimes.errors import ArtifactRejected, DeadlineExceeded, RuntimeFault
from tenants.job_api import await_end
from tenants.jobs import submit
from tenants.models import JobState
from tenants.scope import current_tenant

WARM = "inference.warm"
MAY_PASS = ("unavailable", "host_unavailable", "pool_full", "runner_died", "warm_up_too_slow", "worker_lost")
Limits = Mapping[str, int | float]


def warm_up(versions: Sequence[ModelVersion], limits: Limits, *, had: Limits, within_s: float | None = None) -> None:
    """Go on once one machine holds each of these versions, ready to answer: this one, or where it has no model host, a
    worker's.

    limits: under which they are to run. had: under which those in memory run; where the two differ, each version is
    tried in a runner of its own first. within_s: None for `WARM_UP_SECONDS`.

    Raises:
        Conflict: a version cannot be loaded, or not within its limits, and why. Unavailable: not now, or not in time.
    """
    wait_s = settings.WARM_UP_SECONDS if within_s is None else within_s
    if not wait_s:
        return
    deadline = time.monotonic() + wait_s
    for version in versions:
        if settings.MODELS_SOCKET:
            load_here(version, limits, deadline, is_trial=dict(limits) != dict(had))
        elif not connection.in_atomic_block:  # a worker sees only what is committed
            _load_at_a_worker(version, deadline)


def load_here(version: ModelVersion, limits: Limits | None, deadline: float, *, is_trial: bool = False) -> None:
    """Have this machine's model host load a version, unless it has; deadline: on `time.monotonic()`'s clock.

    limits: None for those that the model has now. is_trial: load it in any case, and let it go again.

    Raises:
        as `warm_up` does.
    """
    host, key = HostClient(settings.MODELS_SOCKET), pool_key(current_tenant(), version)
    if is_trial:
        key += "/trial"
    try:
        host.runner(key, lambda: load_request(version, limits), max(deadline - time.monotonic(), 0.01))
        if is_trial:
            host.evict(key)
    except (RuntimeFault, OSError) as fault:
        raise _refusal(version, fault) from fault


def _load_at_a_worker(version: ModelVersion, deadline: float) -> None:
    with transaction.atomic():
        job = submit(WARM, str(version.pk), max_attempts=1)
    await_end(job, deadline - time.monotonic())
    if job.state == JobState.FAILED and job.error_code in MAY_PASS:
        raise Unavailable(job.error_message, code=job.error_code, retry_after_s=2)
    if job.state == JobState.FAILED:
        raise Conflict(job.error_message, code=job.error_code)
    if job.state != JobState.SUCCEEDED:
        raise _too_slow(version)


def _refusal(version: ModelVersion, fault: Exception) -> PlatformError:
    match fault:
        case ArtifactRejected():
            return Conflict(f"{version} cannot be loaded, so nothing was changed: {fault.reason}", code=fault.code)
        case DeadlineExceeded():
            return _too_slow(version)
        case RuntimeFault():
            return Unavailable(f"{version} cannot be loaded now: {fault.message}", code=fault.code, retry_after_s=2)
        case _:
            return Unavailable("The model host does not answer; try again shortly.", retry_after_s=2)


def _too_slow(version: ModelVersion) -> Unavailable:
    return Unavailable(
        f"No machine had {version} in memory within {settings.WARM_UP_SECONDS} s, so nothing was changed.",
        code="warm_up_too_slow",
        retry_after_s=5,
    )


def settle_once_committed(model: RegisteredModel, before: Routing, after: Routing) -> None:
    """Have this machine keep what is pinned from now on, and have runners under other limits end, after the commit.

    What is no longer routed stays until its room is needed, so that a rollback is instant.
    """
    numbers = {*before.versions, *after.versions}
    keys = {one.number: pool_key(current_tenant(), one) for one in model.versions.filter(number__in=numbers).only("pk")}
    kept = set(after.versions) if after.is_pinned else set()
    let_go = (set(before.versions) if before.is_pinned else set()) - kept
    pin_once_committed([keys[one] for one in kept if one in keys], [keys[one] for one in let_go if one in keys])
    if dict(before.limits) != dict(after.limits):
        end_once_committed([keys[one] for one in after.versions])
