"""Adds a person to a tenant."""

from typing import Any

from django.core.management.base import CommandParser

from tenants import services
from tenants.management.command import ACTOR, PlatformCommand
from tenants.models import Role


class Command(PlatformCommand):
    help = "Give a person a role in a tenant, also one who is a member elsewhere."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("tenant_id", metavar="ID")
        parser.add_argument("email", metavar="EMAIL")
        parser.add_argument("--role", choices=Role.values, default=Role.VIEWER.value)

    def answer(self, options: dict[str, Any]) -> dict[str, Any]:
        member, password = services.add_member(
            tenant=services.tenant_by_id(options["tenant_id"]),
            email=options["email"],
            role=options["role"],
            actor=ACTOR,
            by_operator=True,
        )
        return {"email": member.user.email, "role": member.role, "password": password}

    def words(self, answer: Any) -> str:
        return f"{answer['email']} is {answer['role']}  password: {answer['password'] or '(as before)'}"
