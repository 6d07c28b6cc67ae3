"""Tenants as an app."""

from django.apps import AppConfig


class TenantsConfig(AppConfig):
    """Tables in the shared schema."""

    name = "tenants"

    def ready(self) -> None:
        from tenants import connections  # it needs the models, which are loaded by now

        connections.begin()
