"""A small typed client of Tenantry's REST API: datasets, runs, searches, models and predictions of one tenant."""

from tenantry_client.connection import TenantryError
from tenantry_client.tenant import Dataset, Model, Run, RunFailed, Tenant, Version

__all__ = ["Dataset", "Model", "Run", "RunFailed", "Tenant", "TenantryError", "Version"]
