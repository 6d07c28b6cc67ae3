"""The operator's pages about the platform itself: workers and queues, model hosts, usage, versions."""

from tenantry.admin import machines, usage, versions, workers

__all__ = ["machines", "usage", "versions", "workers"]
