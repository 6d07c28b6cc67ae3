"""Pictures of the platform's pages, taken in a real browser: `make screenshots`."""
