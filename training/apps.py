"""Training as an app."""

from django.apps import AppConfig


class TrainingConfig(AppConfig):
    """Tables in each tenant's schema."""

    name = "training"
    verbose_name = "Training"
