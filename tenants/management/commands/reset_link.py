"""Makes a link by which a person sets a new password."""

from typing import Any

from django.core.management.base import CommandParser

from common.errors import NotFound
from tenants import passwords
from tenants.management.command import ACTOR, PlatformCommand
from tenants.models import OperatorAudit, User


class Command(PlatformCommand):
    help = "Make a link by which a person sets a new password, once, within three days."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("email", metavar="EMAIL")
        parser.add_argument("--base-url", default="", metavar="URL", help="the address of the main host")

    def answer(self, options: dict[str, Any]) -> dict[str, Any]:
        user = User.objects.filter(email=options["email"].lower()).first()
        if user is None:
            raise NotFound("There is nobody with this email address.")
        OperatorAudit.objects.create(actor=ACTOR, action="user.reset_link", detail={"email": user.email})
        return {"link": f"{options['base_url'].rstrip('/')}/{passwords.reset_path(user)}"}

    def words(self, answer: Any) -> str:
        return str(answer["link"])
