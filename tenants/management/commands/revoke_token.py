"""Revokes a token."""

import uuid
from typing import Any

from django.core.management.base import CommandParser

from common.errors import NotFound
from tenants import services
from tenants.management.command import ACTOR, PlatformCommand
from tenants.models import ApiToken


class Command(PlatformCommand):
    help = "End a token, a tenant's or an operator's, at once."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("token", metavar="TOKEN", help="its id, or the token itself")

    def answer(self, options: dict[str, Any]) -> dict[str, Any]:
        token = _token(options["token"])
        services.revoke_token(token=token, actor=ACTOR)
        return {"id": token.pk, "name": token.name, "state": "revoked"}

    def words(self, answer: Any) -> str:
        return f"{answer['name']} is revoked"


def _token(given: str) -> ApiToken:
    try:
        found = ApiToken.objects.filter(pk=uuid.UUID(given))
    except ValueError:
        found = ApiToken.objects.by_secret(given)
    token = found.select_related("tenant").first()
    if token is None:
        raise NotFound("There is no such token; give its id or the token itself.")
    return token
