"""The Open Inference Protocol V2 over HTTP, with the binary tensor extension, below a tenant's `v2/`."""
