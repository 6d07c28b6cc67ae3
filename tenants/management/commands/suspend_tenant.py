"""Suspends a tenant."""

from tenants.management.suspension import SuspensionCommand


class Command(SuspensionCommand):
    help = "Stop serving a tenant; its things stay as they are."
    suspended = True
