"""What every request carries: an id that its answer and its log lines share, and the tenant it is for."""

import contextvars
import random
import re
from collections.abc import Callable

from django.http import Http404, HttpRequest, HttpResponse

from common.errors import Invalid
from common.http import error_response

SANE_ID = re.compile(r"^[A-Za-z0-9._-]{8,100}$")
current_request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
current_tenant_id: contextvars.ContextVar[str] = contextvars.ContextVar("tenant_id", default="")


def new_id() -> str:
    """An id for a request or an answer: 128 bits in hexadecimal that nobody else has, and that nobody need not guess.

    The kernel's random numbers would take a tenth of a prediction's time.
    """
    return f"{random.getrandbits(128):032x}"


class RequestIdMiddleware:
    """Gives the request its id, the caller's own if it is sane, and returns it in `X-Request-ID`."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        request_id = given if SANE_ID.match(given) else new_id()
        request.request_id = request_id  # type: ignore[attr-defined]
        token = current_request_id.set(request_id)
        try:
            response = self.get_response(request)
        finally:
            current_request_id.reset(token)
        response["X-Request-ID"] = request_id
        return response


class AddressMiddleware:
    """Refuses addresses with a NUL character: nothing is named by one, and PostgreSQL cannot even compare with it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if "\0" in request.path_info:
            raise Http404
        query = request.META.get("QUERY_STRING", "")
        if "%00" in query or "\0" in query:
            return error_response(Invalid("A parameter of the address holds a NUL character."), request)
        return self.get_response(request)
