"""Resumes a tenant."""

from tenants.management.suspension import SuspensionCommand


class Command(SuspensionCommand):
    help = "Serve a suspended tenant again."
    suspended = False
