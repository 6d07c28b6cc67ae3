"""Brings the database up to this version of the platform."""

from typing import Any

from django.core.management.base import BaseCommand

from tenants import provisioning


class Command(BaseCommand):
    help = "Migrate the shared schema, the template of tenants' schemas and every tenant that is behind; resumable."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        for step in provisioning.upgrade():
            self.stdout.write(step)
