"""What predictions add to the tenant's admin."""

from inference.admin import batch_jobs, home, try_it, used_models

__all__ = ["batch_jobs", "home", "try_it", "used_models"]
