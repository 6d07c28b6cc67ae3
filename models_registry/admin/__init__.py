"""The registry's admin pages."""

from models_registry.admin import models, panels, versions

__all__ = ["models", "panels", "versions"]
