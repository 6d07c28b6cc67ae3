"""Says whether every part of the stack is ready."""

import json
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from tenantry.status import Part, as_json, parts

LOOK_EVERY_S = 0.5


class Command(BaseCommand):
    help = "Say of every part of the stack whether it is ready, and why not; exit 1 unless all are."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--wait", action="store_true", help="until all are ready, or the time is up")
        parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="how long to wait")
        parser.add_argument("--json", action="store_true", help="print one line of JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        found = self._look(options["timeout"] if options["wait"] else 0.0)
        body = as_json(found)
        self.stdout.write(json.dumps(body) if options["json"] else "\n".join(_line(part) for part in found))
        if not body["ready"]:
            raise CommandError(f"Not ready: {', '.join(part.name for part in found if not part.is_ready)}.")

    def _look(self, wait_s: float) -> list[Part]:
        deadline = time.monotonic() + wait_s
        while True:
            found = parts()
            if all(part.is_ready for part in found) or time.monotonic() >= deadline:
                return found
            connection.close()  # one to a server that was still starting never gets better
            time.sleep(LOOK_EVERY_S)


def _line(part: Part) -> str:
    return f"{part.name:<16} {'ready' if part.is_ready else 'NOT READY':<10} {part.detail}"
