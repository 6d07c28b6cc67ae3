"""What every request carries: an id that its answer and its log lines share, and the tenant it is for."""

import contextvars
import re
import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

SANE_ID = re.compile(r"^[A-Za-z0-9._-]{8,100}$")
current_request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
current_tenant_id: contextvars.ContextVar[str] = contextvars.ContextVar("tenant_id", default="")


class RequestIdMiddleware:
    """Gives the request its id, the caller's own if it is sane, and returns it in `X-Request-ID`."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-ID", "")
        request_id = given if SANE_ID.match(given) else uuid.uuid4().hex
        request.request_id = request_id  # type: ignore[attr-defined]
        token = current_request_id.set(request_id)
        try:
            response = self.get_response(request)
        finally:
            current_request_id.reset(token)
        response["X-Request-ID"] = request_id
        return response
