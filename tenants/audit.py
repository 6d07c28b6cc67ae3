"""Writing the audit trail of the current tenant."""

from typing import Any

from common.requests import current_request_id
from tenants.journal.models import AuditEvent


def record(*, actor: str, action: str, target: str = "", **detail: Any) -> None:
    """Add a line to the tenant's audit trail, in the caller's transaction."""
    AuditEvent.objects.create(
        actor=actor, action=action, target=target[:250], detail=detail, request_id=current_request_id.get()
    )
