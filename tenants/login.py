"""Slowing down who guesses passwords."""

import hashlib

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest

from common.errors import Throttled

WINDOW_S = 15 * 60
MOST_PER_ACCOUNT_AND_ADDRESS = 5
MOST_PER_ADDRESS = 50
MOST_PER_ACCOUNT = 100  # from everywhere together; high, since it lets a stranger keep the owner out


def count_attempt(request: HttpRequest, email: str) -> None:
    """Count one more attempt, before the password is looked at, so that attempts at once are not more than counted.

    Raises:
        Throttled: there were too many lately; nothing was counted for the account by this one.
    """
    address = address_of(request)
    _count(_key("address", address), MOST_PER_ADDRESS)
    _count(_key("pair", _folded(email), address), MOST_PER_ACCOUNT_AND_ADDRESS)
    _count(_key("account", _folded(email)), MOST_PER_ACCOUNT)


def forget_attempts(request: HttpRequest, email: str) -> None:
    """Begin to count anew for who has shown the right password from this address."""
    cache.delete(_key("pair", _folded(email), address_of(request)))


def address_of(request: HttpRequest) -> str:
    """The client's address, as the outermost of our proxies saw it, where the settings say how many there are."""
    # Each proxy appends whom it saw, so what stands before our own proxies' words is whatever the client has sent.
    forwarded = request.headers.get("X-Forwarded-For", "").split(",")
    if 0 < settings.PROXY_COUNT <= len(forwarded):
        return forwarded[-settings.PROXY_COUNT].strip()
    return str(request.META.get("REMOTE_ADDR", ""))


def _count(key: str, most: int) -> None:
    cache.add(key, 0, WINDOW_S)
    try:
        count = cache.incr(key)
    except ValueError:  # it ran out between the two lines
        count = 1
    if count > most:
        raise Throttled("Too many attempts to log in; wait a quarter of an hour.", retry_after_s=WINDOW_S)


def _folded(email: str) -> str:
    return email.strip().lower()[:254]


def _key(*parts: str) -> str:
    return f"login:{parts[0]}:{hashlib.sha256(':'.join(parts).encode()).hexdigest()}"
