"""The project itself as an app: it gives every process the one Celery application."""

from django.apps import AppConfig


class TenantryConfig(AppConfig):
    """Loads the Celery application, so that a web process sends its hints to the configured broker."""

    name = "tenantry"

    def ready(self) -> None:
        from tenantry import celery  # noqa: F401  (needs the settings, so it cannot stand at the top)
