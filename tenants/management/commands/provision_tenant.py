"""Makes a tenant."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from common.errors import PlatformError
from tenants import services


class Command(BaseCommand):
    help = "Make a tenant with its schema, its first admin and a first token with every scope."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant_id", metavar="ID")
        parser.add_argument("--name", default="")
        parser.add_argument("--admin", required=True, metavar="EMAIL")
        parser.add_argument("--storage", default=None)
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        tenant_id = options["tenant_id"]
        try:
            made = services.provision_tenant(
                tenant_id=tenant_id,
                name=options["name"] or tenant_id,
                admin_email=options["admin"],
                storage_alias=options["storage"],
                actor="command line",
            )
        except PlatformError as error:
            raise CommandError(error.message) from error
        answer = {
            "tenantId": tenant_id,
            "admin": {"email": made.admin.email, "password": made.admin_password},
            "token": made.token,
        }
        if options["json"]:
            self.stdout.write(json.dumps(answer))
            return
        self.stdout.write(f"{tenant_id} is at /t/{tenant_id}/")
        self.stdout.write(f"admin: {made.admin.email}  password: {made.admin_password or '(as before)'}")
        self.stdout.write(f"token, shown once: {made.token}")
