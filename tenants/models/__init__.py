"""What all tenants share, in the public schema: who they are, who may come in, and the jobs that wait."""

from tenants.models.access import ApiToken, Membership, Role, Scope, User
from tenants.models.jobs import Job, JobLost, JobState
from tenants.models.tenancy import Domain, Lane, OperatorAudit, SchemaTemplate, Tenant, TenantState

__all__ = [
    "ApiToken",
    "Domain",
    "Job",
    "JobLost",
    "JobState",
    "Lane",
    "Membership",
    "OperatorAudit",
    "Role",
    "SchemaTemplate",
    "Scope",
    "Tenant",
    "TenantState",
    "User",
]
