"""What the commands about tenants share."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, OperationalError, ProgrammingError

from common.errors import PlatformError

ACTOR = "command line"


class PlatformCommand(BaseCommand):
    """A command whose errors are one sentence, and whose answer is text, or JSON with `--json`.

    A subclass does its work in `answer`, which returns what `--json` prints, and words it in `words`.
    """

    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the answer as one line of JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            answer = self.answer(options)
        except PlatformError as error:
            raise CommandError(error.message) from error
        except OperationalError as error:
            raise CommandError(f"The database cannot be reached: {first_line(error)}") from error
        except ProgrammingError as error:
            raise CommandError(
                f"The database does not fit this version; run `manage.py upgrade` ({first_line(error)})."
            ) from error
        self.stdout.write(json.dumps(answer, default=str) if options["json"] else self.words(answer))

    def answer(self, options: dict[str, Any]) -> Any:
        """Do the work and return what there is to say about it."""
        raise NotImplementedError

    def words(self, answer: Any) -> str:
        """The answer for a person."""
        raise NotImplementedError


def first_line(error: DatabaseError) -> str:
    """What the database said, in one line."""
    return str(error).strip().partition("\n")[0]
