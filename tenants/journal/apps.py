"""A tenant's own records of what was done in it; an app of its own because its tables live in the tenant's schema."""

from django.apps import AppConfig


class JournalConfig(AppConfig):
    """Tables in each tenant's schema."""

    name = "tenants.journal"
    label = "journal"
