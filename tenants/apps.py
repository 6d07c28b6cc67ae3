"""Tenants as an app."""

from django.apps import AppConfig


class TenantsConfig(AppConfig):
    """Tables in the shared schema."""

    name = "tenants"
