"""A small typed client of Tenantry's REST API: datasets, runs, searches, models and predictions of one tenant."""

from tenantry_client.connection import RunFailed, TenantryError
from tenantry_client.datasets import Dataset
from tenantry_client.models import Model, Version
from tenantry_client.runs import Run
from tenantry_client.tenant import Tenant

__all__ = ["Dataset", "Model", "Run", "RunFailed", "Tenant", "TenantryError", "Version"]
