"""The registry's admin pages."""

from models_registry.admin import models, panels, usage, versions

__all__ = ["models", "panels", "usage", "versions"]
