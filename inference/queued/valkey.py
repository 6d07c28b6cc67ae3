"""The process's client of Valkey, over which replies come back."""

from functools import cache

import redis
from django.conf import settings

CONNECT_S = 5.0
ANSWER_S = 10.0


@cache
def valkey() -> redis.Redis:
    """The client; its pool is safe among threads. It waits for an answer longer than `Inbox` blocks."""
    return redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=ANSWER_S, socket_connect_timeout=CONNECT_S, health_check_interval=30
    )
