"""Pages that need to know several apps: the operator's about the platform itself, and how far requests have moved."""

from tenantry.admin import drift, machines, usage, versions, workers

__all__ = ["drift", "machines", "usage", "versions", "workers"]
