"""Inference as an app."""

from django.apps import AppConfig


class InferenceConfig(AppConfig):
    """Tables in each tenant's schema."""

    name = "inference"
    verbose_name = "Inference"
