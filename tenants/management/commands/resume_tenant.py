"""Resumes a tenant."""

from typing import Any

from django.core.management.base import CommandParser

from tenants import services
from tenants.management.command import ACTOR, PlatformCommand


class Command(PlatformCommand):
    help = "Serve a suspended tenant again."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("tenant_id", metavar="ID")

    def answer(self, options: dict[str, Any]) -> dict[str, Any]:
        tenant = services.tenant_by_id(options["tenant_id"])
        services.set_suspended(tenant=tenant, suspended=False, actor=ACTOR)
        return {"tenantId": tenant.tenant_id, "state": tenant.state}

    def words(self, answer: Any) -> str:
        return f"{answer['tenantId']} is {answer['state']}"
