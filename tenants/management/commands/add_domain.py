"""Gives a tenant a host name of its own."""

from typing import Any

from django.core.management.base import CommandParser

from tenants import services
from tenants.management.command import ACTOR, PlatformCommand


class Command(PlatformCommand):
    help = "Give a tenant a host name of its own, beside its path on the main host."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("tenant_id", metavar="ID")
        parser.add_argument("domain", metavar="HOST")

    def answer(self, options: dict[str, Any]) -> dict[str, Any]:
        tenant = services.tenant_by_id(options["tenant_id"])
        domain = services.add_domain(tenant=tenant, domain=options["domain"], actor=ACTOR)
        return {"tenantId": tenant.tenant_id, "domain": domain.domain}

    def words(self, answer: Any) -> str:
        return f"{answer['domain']} is {answer['tenantId']}'s"
