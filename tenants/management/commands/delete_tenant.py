"""Deletes a tenant for good."""

from typing import Any

from django.core.management.base import CommandParser

from tenants import services
from tenants.management.command import ACTOR, PlatformCommand


class Command(PlatformCommand):
    help = "Delete a tenant for good: its schema, its files, its rows. Run it again if it stopped halfway."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("tenant_id", metavar="ID")
        parser.add_argument("--confirm", required=True, metavar="ID", help="the ID once more")

    def answer(self, options: dict[str, Any]) -> dict[str, Any]:
        tenant = services.tenant_by_id(options["tenant_id"], or_deleting=True)
        services.delete_tenant(tenant=tenant, confirm=options["confirm"], actor=ACTOR)
        return {"tenantId": options["tenant_id"], "state": "deleted"}

    def words(self, answer: Any) -> str:
        return f"{answer['tenantId']} is deleted"
