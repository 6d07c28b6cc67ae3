"""Whether this process lives, and whether it can serve."""

from collections.abc import Callable

from django.core.cache import cache
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse


def healthz(request: HttpRequest) -> HttpResponse:
    """200 as long as the process answers."""
    return JsonResponse({"status": "alive"})


def readyz(request: HttpRequest) -> HttpResponse:
    """200 when this process reaches its database and its cache, else 503 naming what it misses."""
    missing = [name for name, reach in (("database", _database), ("cache", _cache)) if not _works(reach)]
    if missing:
        return JsonResponse({"status": "not ready", "missing": missing}, status=503, headers={"Retry-After": "2"})
    return JsonResponse({"status": "ready"})


def _works(reach: Callable[[], None]) -> bool:
    try:
        reach()
    except Exception:  # whatever a driver raises, the answer is the same: not ready
        return False
    return True


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _cache() -> None:
    cache.get("readyz")
