"""The admin pages of datasets, runs and searches."""

from training.admin import datasets, panels, runs, searches, usage

__all__ = ["datasets", "panels", "runs", "searches", "usage"]
