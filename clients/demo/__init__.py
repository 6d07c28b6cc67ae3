"""The story of two tenants, told over HTTP alone: `make demo`."""
