"""Issues a token of a tenant."""

from typing import Any

from django.core.management.base import CommandParser

from tenants import services
from tenants.durations import parse_duration
from tenants.management.command import ACTOR, PlatformCommand
from tenants.models import Scope


class Command(PlatformCommand):
    help = "Issue a token of a tenant; its secret is printed this once."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("tenant_id", metavar="ID")
        parser.add_argument("--scope", action="append", required=True, choices=Scope.values, help="may be repeated")
        parser.add_argument("--expires", metavar="90d", help="m, h, d or w; never if left out")
        parser.add_argument("--name", default="command-line")

    def answer(self, options: dict[str, Any]) -> dict[str, Any]:
        token, secret = services.issue_token(
            tenant=services.tenant_by_id(options["tenant_id"]),
            name=options["name"],
            scopes=options["scope"],
            expires_in=parse_duration(options["expires"]) if options["expires"] else None,
            actor=ACTOR,
        )
        return {"token": secret, "id": token.pk, "scopes": token.scopes, "expires_at": token.expires_at}

    def words(self, answer: Any) -> str:
        return f"token, shown once: {answer['token']}\nid: {answer['id']}  expires: {answer['expires_at'] or 'never'}"
