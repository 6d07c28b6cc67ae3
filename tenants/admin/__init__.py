"""Admin pages about people, tokens, tenants and jobs: a tenant's own, and the operator's."""

from tenants.admin import jobs, members, people, platform_tokens, tenants, tokens

__all__ = ["jobs", "members", "people", "platform_tokens", "tenants", "tokens"]
