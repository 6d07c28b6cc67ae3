"""Lists the tenants."""

from typing import Any

from django.core.management.base import CommandParser

from tenants.management.command import PlatformCommand
from tenants.models import Tenant, TenantState
from tenants.serializers import TenantSerializer


class Command(PlatformCommand):
    help = "List the tenants."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--state", choices=TenantState.values)

    def answer(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        found = Tenant.objects.prefetch_related("domains")
        if options["state"]:
            found = found.filter(state=options["state"])
        return [dict(TenantSerializer(tenant).data) for tenant in found]

    def words(self, answer: Any) -> str:
        if not answer:
            return "There are no tenants."
        return "\n".join(
            f"{one['tenantId']:<40} {one['state']:<10} {one['storage']:<12} {one['name']}" for one in answer
        )
