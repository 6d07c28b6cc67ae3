"""That a token was used, and by which operator a tenant was: noted once a minute, and not while somebody waits.

Who asks writes nothing but in this process's memory; a thread writes what has gathered, and keeps it until PostgreSQL
has it. Only an operator's first use of a tenant in a process is in the tenant's audit trail before it is answered, so
that no process that is killed takes the trace of an operator along.
"""

import logging
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.core.cache import cache
from django.db import InterfaceError, OperationalError, ProgrammingError
from django.db.models import Q
from django.utils import timezone

from common.background import Background
from tenants import audit
from tenants.models import ApiToken, Tenant
from tenants.scope import connection, tenant_scope

log = logging.getLogger(__name__)

NOTED_FOR_S = 60
MOST_NOTED = 50_000
WRITE_AFTER_S = 2.0


@dataclass(frozen=True)
class OperatorUse:
    """What an operator asked of a tenant, as `GET /api/v1/models`."""

    actor: str
    identity: str
    tenant: Tenant
    asked: str


class Uses:
    """What this process has noted, and what of it is still to be written."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted_until: dict[object, float] = {}
        self._tokens: set[UUID] = set()
        self._operators: list[OperatorUse] = []
        self._writing = Background("uses", self._write_apart, after_s=WRITE_AFTER_S)

    def note_token(self, token: UUID) -> None:
        """Have the token's `last_used_at` say that it was used now."""
        if time.monotonic() < self._noted_until.get(token, 0.0):
            return
        self._is_noted(token)
        with self._lock:
            self._tokens.add(token)
        self._writing.ask()

    def note_operator(self, actor: str, identity: str, tenant: Tenant, asked: str) -> None:
        """Have the tenant, which is in scope, see in its audit trail that an operator works in it."""
        key = (identity, tenant.pk)
        noted_until = self._noted_until.get(key)
        if noted_until is not None and time.monotonic() < noted_until:
            return
        use = OperatorUse(actor, identity, tenant, asked[:200])
        if noted_until is None:
            _record(use)
        self._is_noted(key)
        if noted_until is not None:
            with self._lock:
                self._operators.append(use)
            self._writing.ask()

    def write(self) -> None:
        """Write what has gathered. What the database cannot take now is kept for the next time."""
        with self._lock:
            tokens, self._tokens = self._tokens, set()
            operators, self._operators = self._operators, []
        try:
            _touch(tokens)
            tokens = set()
            while operators:
                _record_apart(operators[-1])
                operators.pop()
        except (OperationalError, InterfaceError):
            with self._lock:
                self._tokens |= tokens
                self._operators += operators
            raise

    def _write_apart(self) -> None:
        try:
            self.write()
        finally:
            connection.close()

    def _is_noted(self, key: object) -> None:
        if len(self._noted_until) >= MOST_NOTED:
            self._noted_until.clear()
        self._noted_until[key] = time.monotonic() + NOTED_FOR_S


def _touch(tokens: set[UUID]) -> None:
    now = timezone.now()
    not_lately = Q(last_used_at=None) | Q(last_used_at__lt=now - timedelta(seconds=NOTED_FOR_S))
    ApiToken.objects.filter(not_lately, pk__in=tokens).update(last_used_at=now)


def _record_apart(use: OperatorUse) -> None:
    try:
        with tenant_scope(use.tenant):
            _record(use)
    except ProgrammingError:  # the tenant was deleted meanwhile, and its trail with it
        log.info("operator_use_of_a_deleted_tenant", extra={"tenant": use.tenant.tenant_id, "actor": use.actor})


def _record(use: OperatorUse) -> None:
    if _is_first(f"operator-use:{use.tenant.pk}:{use.identity}"):
        audit.record(actor=use.actor, action="operator.access", first_request=use.asked)


def _is_first(key: str) -> bool:
    """Whether no process has noted it within the minute."""
    try:
        return bool(cache.add(key, 1, NOTED_FOR_S))
    except Exception:  # whatever a cache driver raises: a line too many is better than a use that does not show
        log.warning("cache_unavailable", exc_info=True)
        return True


_uses = Uses()
note_token, note_operator, write = _uses.note_token, _uses.note_operator, _uses.write
