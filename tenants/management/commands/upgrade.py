"""Brings the database up to this version of the platform."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from common.errors import PlatformError
from tenants import provisioning
from tenants.management.command import first_line


class Command(BaseCommand):
    help = "Migrate the shared schema, the template of tenants' schemas and every tenant that is behind; resumable."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            for step in provisioning.upgrade():
                self.stdout.write(step)
        except PlatformError as error:
            raise CommandError(error.message) from error
        except OperationalError as error:
            raise CommandError(f"The database cannot be reached: {first_line(error)}") from error
