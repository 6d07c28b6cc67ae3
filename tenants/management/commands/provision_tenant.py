"""Makes a tenant."""

from typing import Any

from django.core.management.base import CommandParser

from tenants import services
from tenants.management.command import ACTOR, PlatformCommand


class Command(PlatformCommand):
    help = "Make a tenant with its schema, its first admin and a first token with every scope."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("tenant_id", metavar="ID")
        parser.add_argument("--name", default="", help="the ID if left out")
        parser.add_argument("--admin", required=True, metavar="EMAIL")
        parser.add_argument("--storage", default=None, help="where its files go; TENANT_STORAGE if left out")

    def answer(self, options: dict[str, Any]) -> dict[str, Any]:
        made = services.provision_tenant(
            tenant_id=options["tenant_id"],
            name=options["name"] or options["tenant_id"],
            admin_email=options["admin"],
            storage_alias=options["storage"],
            actor=ACTOR,
        )
        admin = {"email": made.admin.email, "password": made.admin_password}
        return {"tenantId": made.tenant.tenant_id, "admin": admin, "token": made.token}

    def words(self, answer: Any) -> str:
        admin = answer["admin"]
        return (
            f"{answer['tenantId']} is at /t/{answer['tenantId']}/\n"
            f"admin: {admin['email']}  password: {admin['password'] or '(as before)'}\n"
            f"token, shown once: {answer['token']}"
        )
