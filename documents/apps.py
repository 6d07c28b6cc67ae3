"""Documents as an app."""

from django.apps import AppConfig


class DocumentsConfig(AppConfig):
    """Tables in each tenant's schema."""

    name = "documents"
    verbose_name = "Documents"
