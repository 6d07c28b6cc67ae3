"""What predictions add to the tenant's admin."""

from inference.admin import batch_jobs, try_it

__all__ = ["batch_jobs", "try_it"]
