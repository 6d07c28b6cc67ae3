"""A tenant's audit trail as CSV, however long it is."""

import csv
import json
from collections.abc import Iterator
from typing import Any

from django.db.models import Q, QuerySet

from tenants.journal.models import AuditEvent
from tenants.models import Tenant
from tenants.scope import tenant_scope

COLUMNS = ("at", "actor", "action", "target", "detail", "request_id")
AT_ONCE = 1000
FORMULA = ("=", "+", "-", "@", "\t", "\r")


class _Line:
    """Where a CSV writer writes to: its last line."""

    def write(self, text: str) -> str:
        """The line, which the writer hands on."""
        return text


def csv_lines(events: QuerySet[AuditEvent], tenant: Tenant) -> Iterator[str]:
    """The events' lines below a header, the newest first, read some at a time.

    They are made after the request has left its tenant, so each reading enters it again.
    """
    writer = csv.writer(_Line())
    yield writer.writerow(COLUMNS)
    before: tuple[Any, Any] | None = None
    while True:
        with tenant_scope(tenant):
            page = list(_next_page(events, before))
        yield from (writer.writerow(_cells(event)) for event in page)
        if len(page) < AT_ONCE:
            return
        before = (page[-1].at, page[-1].pk)


def _next_page(events: QuerySet[AuditEvent], before: tuple[Any, Any] | None) -> QuerySet[AuditEvent]:
    if before is not None:
        at, key = before
        events = events.filter(Q(at__lt=at) | Q(at=at, pk__lt=key))
    return events.order_by("-at", "-pk")[:AT_ONCE]


def _cells(event: AuditEvent) -> list[str]:
    detail = json.dumps(event.detail, ensure_ascii=False, sort_keys=True) if event.detail else ""
    return [
        event.at.isoformat(),
        *map(_harmless, (event.actor, event.action, event.target, detail, event.request_id)),
    ]


def _harmless(text: str) -> str:
    """The text, which no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text
