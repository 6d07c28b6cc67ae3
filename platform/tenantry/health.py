"""Whether this process lives, and whether it can serve."""

from collections.abc import Callable

from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from inference.pool import client_of
from tenantry import status
from tenants.permissions import IsOperator

PART = inline_serializer("Part", {"ready": serializers.BooleanField(), "detail": serializers.CharField()})
STATUS = inline_serializer("Status", {"ready": serializers.BooleanField(), "parts": serializers.DictField(child=PART)})


def healthz(request: HttpRequest) -> HttpResponse:
    """200 as long as the process answers."""
    return JsonResponse({"status": "alive"})


def readyz(request: HttpRequest) -> HttpResponse:
    """200 when this process reaches its database and its cache, and its machine's model host holds what is pinned; else
    503 naming what it misses."""
    parts = (("database", _database), ("cache", _cache), ("models", _models))
    missing = [name for name, reach in parts if not _works(reach)]
    if missing:
        return JsonResponse({"status": "not ready", "missing": missing}, status=503, headers={"Retry-After": "2"})
    return JsonResponse({"status": "ready"})


class StatusView(APIView):
    """Every part of the stack, ready or not, and why; 503 unless all are."""

    permission_classes = (IsOperator,)

    @extend_schema(responses={200: STATUS, 503: STATUS})
    def get(self, request: Request) -> Response:
        body = status.as_json(status.parts())
        return Response(body, status=200 if body["ready"] else 503)


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


def _models() -> None:
    if settings.MODELS_SOCKET and not client_of(settings.MODELS_SOCKET).is_ready():
        raise LookupError("the pinned versions are not in memory yet")
