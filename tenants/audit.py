"""Writing the audit trail of the current tenant."""

import logging
import time
from typing import Any
from uuid import UUID

from django.core.cache import cache

from common.requests import current_request_id
from tenants.journal.models import AuditEvent
from tenants.models import Tenant

log = logging.getLogger(__name__)

OPERATOR_SEEN_FOR_S = 60
MOST_SEEN = 10_000
_seen: dict[tuple[str, UUID], float] = {}


def record(*, actor: str, action: str, target: str = "", **detail: Any) -> None:
    """Add a line to the tenant's audit trail, in the caller's transaction."""
    AuditEvent.objects.create(
        actor=actor, action=action, target=target[:250], detail=detail, request_id=current_request_id.get()
    )


def note_operator(actor: str, identity: str, tenant: Tenant, use: str) -> None:
    """Show the current tenant that an operator works in it: one line a minute and operator, not one a request.

    This process remembers whom it has noted, so that a prediction costs a look into a dict; the cache tells the others.
    """
    now = time.monotonic()
    if now < _seen.get((identity, tenant.pk), 0.0):
        return
    if len(_seen) >= MOST_SEEN:
        _seen.clear()
    _seen[identity, tenant.pk] = now + OPERATOR_SEEN_FOR_S
    if _is_first(f"operator-use:{tenant.pk}:{identity}"):
        record(actor=actor, action="operator.access", first_request=use[:200])


def _is_first(key: str) -> bool:
    try:
        return bool(cache.add(key, 1, OPERATOR_SEEN_FOR_S))
    except Exception:  # whatever a cache driver raises: a line too many is better than a use that does not show
        log.warning("cache_unavailable", exc_info=True)
        return True
