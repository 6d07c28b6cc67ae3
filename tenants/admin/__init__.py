"""Admin pages about people, tokens, tenants and jobs: a tenant's own, and the operator's."""

from tenants.admin import attention, jobs, members, people, platform_tokens, settings, tenants, tokens, usage

__all__ = ["attention", "jobs", "members", "people", "platform_tokens", "settings", "tenants", "tokens", "usage"]
