"""What predictions add to the tenant's admin."""

from inference.admin import try_it

__all__ = ["try_it"]
