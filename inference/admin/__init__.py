"""What predictions add to the tenant's admin."""

from inference.admin import attention, batch_jobs, home, try_it, used_models

__all__ = ["attention", "batch_jobs", "home", "try_it", "used_models"]
