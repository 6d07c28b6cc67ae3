"""What suspending and resuming a tenant have in common, which is all but the word."""

from typing import Any, ClassVar

from django.core.management.base import CommandParser

from tenants import services
from tenants.management.command import ACTOR, PlatformCommand


class SuspensionCommand(PlatformCommand):
    """Sets whether a tenant is suspended. suspended: what it is afterwards."""

    suspended: ClassVar[bool]

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("tenant_id", metavar="ID")

    def answer(self, options: dict[str, Any]) -> dict[str, Any]:
        tenant = services.tenant_by_id(options["tenant_id"])
        services.set_suspended(tenant=tenant, suspended=self.suspended, actor=ACTOR)
        return {"tenantId": tenant.tenant_id, "state": tenant.state}

    def words(self, answer: Any) -> str:
        return f"{answer['tenantId']} is {answer['state']}"
