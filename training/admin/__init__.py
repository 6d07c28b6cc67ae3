"""The admin pages of datasets and runs."""

from training.admin import datasets, panels, runs

__all__ = ["datasets", "panels", "runs"]
