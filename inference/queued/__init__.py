"""The queue lane: predictions that leave a web process as Celery messages, and come back over one Valkey list."""
