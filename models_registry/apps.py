"""Model registry as an app."""

from django.apps import AppConfig


class ModelsRegistryConfig(AppConfig):
    """Tables in each tenant's schema."""

    name = "models_registry"
    verbose_name = "Model registry"
