"""The one form of errors, lists and long work over HTTP."""

import io
import logging
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.core.exceptions import (
    BadRequest,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
    TooManyFilesSent,
)
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from rest_framework import exceptions as drf
from rest_framework.pagination import CursorPagination
from rest_framework.parsers import JSONParser
from rest_framework.response import Response

from common import errors
from common.queries import whole_number_asked

log = logging.getLogger(__name__)

LARGEST_JSON_BYTES = 4 << 20

OPEN_INFERENCE, MLFLOW = "/v2", "/models/"  # below a tenant's address, each with its own form of errors
API_PREFIXES = ("/api/", OPEN_INFERENCE, MLFLOW, "/metrics")

RETRY_AFTER_S = 5  # where nobody knows better

STATUS_BY_KIND: Mapping[type[errors.PlatformError], int] = {
    errors.Malformed: 400,
    errors.Unauthenticated: 401,
    errors.Denied: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.TooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.Invalid: 422,
    errors.Throttled: 429,
    errors.Unavailable: 503,
    errors.TimedOut: 504,
}
# MLflow's names, and the statuses that its clients expect with them.
MLFLOW_ERRORS: Mapping[int, tuple[str, int]] = {
    400: ("BAD_REQUEST", 400),
    401: ("UNAUTHENTICATED", 401),
    403: ("PERMISSION_DENIED", 403),
    404: ("RESOURCE_DOES_NOT_EXIST", 404),
    409: ("RESOURCE_CONFLICT", 409),
    422: ("INVALID_PARAMETER_VALUE", 400),
    429: ("REQUEST_LIMIT_EXCEEDED", 429),
    500: ("INTERNAL_ERROR", 500),
    503: ("TEMPORARILY_UNAVAILABLE", 503),
    504: ("DEADLINE_EXCEEDED", 504),
}


def is_api(request: HttpRequest) -> bool:
    """Whether a program is asking, who reads JSON, rather than a person with a browser."""
    return request.path_info.startswith(API_PREFIXES)


def status_of(error: errors.PlatformError) -> int:
    """The HTTP status of an error's kind."""
    return next(status for kind, status in STATUS_BY_KIND.items() if isinstance(error, kind))


def error_body(code: str, message: str, request_id: str, fields: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The body of every error of the platform's own API."""
    error: dict[str, Any] = {"code": code, "message": sendable(message), "request_id": request_id}
    if fields:
        error["fields"] = {sendable(name): sendable(fault) for name, fault in fields.items()}
    return {"error": error}


def refusal(
    request: HttpRequest, status: int, code: str, message: str, fields: Mapping[str, str] | None = None
) -> HttpResponse:
    """An error as JSON, in the form of the protocol that the request's path belongs to."""
    text = sendable("; ".join((message, *(f"{name}: {fault}" for name, fault in (fields or {}).items()))))
    if request.path_info.startswith(OPEN_INFERENCE):
        return json_response({"error": text}, status)
    if request.path_info.startswith(MLFLOW):
        name, status = MLFLOW_ERRORS.get(status, ("BAD_REQUEST", status))
        return json_response({"error_code": name, "message": text}, status)
    return json_response(error_body(code, message, request_id_of(request), fields), status)


def sendable(text: str) -> str:
    """The text as UTF-8 can carry it: half a surrogate pair, which JSON lets in, becomes a question mark."""
    return text.encode(errors="replace").decode()


def error_response(error: errors.PlatformError, request: HttpRequest) -> HttpResponse:
    """A plain Django response for an error, with the headers that its kind owes."""
    response = refusal(request, status_of(error), error.code, error.message, error.fields)
    for name, value in error_headers(error).items():
        response[name] = value
    return response


def json_response(body: Any, status: int) -> HttpResponse:
    """JSON as DRF writes it, so that nobody can tell from the bytes which of the two has answered."""
    return JsonResponse(body, status=status, json_dumps_params={"separators": (",", ":"), "ensure_ascii": False})


def error_headers(error: errors.PlatformError) -> dict[str, str]:
    """Retry-After where waiting helps, WWW-Authenticate where a token would."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    elif isinstance(error, errors.Throttled | errors.Unavailable):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if isinstance(error, errors.Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="tenantry"'
    return headers


def request_id_of(request: HttpRequest) -> str:
    """The id that RequestIdMiddleware gave this request."""
    return str(getattr(request, "request_id", ""))


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """What DRF answers for an exception; None for bugs, which Django turns into a 500."""
    error = as_platform_error(exc)
    if error is None:
        return None
    body = error_body(error.code, error.message, request_id_of(context["request"]), error.fields)
    status = exc.status_code if isinstance(exc, drf.MethodNotAllowed) else status_of(error)
    return Response(body, status=status, headers=error_headers(error) | _allow(exc, context))


def as_platform_error(exc: BaseException | None) -> errors.PlatformError | None:
    """The platform's error for an exception of the platform, of DRF or of Django; None for anything else."""
    match exc:
        case errors.PlatformError():
            return exc
        case drf.ValidationError():
            return errors.Invalid("Some fields are not right.", fields=flatten(exc.detail))
        case drf.ParseError():
            return errors.Malformed(f"The body cannot be read: {exc.detail}")
        case drf.NotAuthenticated() | drf.AuthenticationFailed():
            return errors.Unauthenticated(str(exc.detail))
        case drf.UnsupportedMediaType():
            return errors.UnsupportedMedia(str(exc.detail))
        case drf.MethodNotAllowed():
            return errors.Malformed(str(exc.detail), code="method_not_allowed")
        case drf.NotAcceptable():
            return errors.Malformed(str(exc.detail), code="not_acceptable")
        case drf.Throttled():
            return errors.Throttled(str(exc.detail), retry_after_s=exc.wait)  # type: ignore[attr-defined]
        case drf.PermissionDenied() | PermissionDenied():
            return errors.Denied(str(exc) or "You may not do this.")
        case RequestDataTooBig() | TooManyFilesSent() | TooManyFieldsSent():
            return errors.TooLarge("The body is larger, or has more parts, than this path takes.")
        case SuspiciousOperation() | BadRequest() | UnreadablePostError():
            return errors.Malformed("The request cannot be read.")
        case DjangoValidationError():
            return errors.Invalid(" ".join(exc.messages))
        case drf.NotFound() | Http404():
            return errors.NotFound("There is nothing here by that name.")
        case OperationalError() | InterfaceError():
            log.exception("database_unavailable")
            return errors.Unavailable("The database cannot be reached; try again shortly.", retry_after_s=2)
        case _:
            return None


def flatten(detail: Any, path: str = "") -> dict[str, str]:
    """DRF's nested error details as one sentence a field path."""
    if isinstance(detail, Mapping):
        items = [(_joined(path, key), value) for key, value in detail.items()]
    elif isinstance(detail, list) and any(isinstance(item, list | Mapping) for item in detail):
        items = [(f"{path}[{index}]", value) for index, value in enumerate(detail) if value]
    else:
        return {path or "body": " ".join(map(str, detail)) if isinstance(detail, list) else str(detail)}
    return {key: text for name, value in items for key, text in flatten(value, name).items()}


def _joined(path: str, key: object) -> str:
    """`parts[1].size`; DRF keys the faults of a list by their numbers."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else str(key)


def _allow(exc: Exception, context: dict[str, Any]) -> dict[str, str]:
    return {"Allow": ", ".join(context["view"].allowed_methods)} if isinstance(exc, drf.MethodNotAllowed) else {}


class JsonParser(JSONParser):
    """JSON that fits in memory, where it takes up to 30 times its text.

    What is nested too deep for the parser is malformed, not a bug.
    """

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        content = stream.read(LARGEST_JSON_BYTES + 1)
        if len(content) > LARGEST_JSON_BYTES:
            raise errors.TooLarge(f"A JSON body has at most {LARGEST_JSON_BYTES} bytes.")
        try:
            return super().parse(io.BytesIO(content), media_type, parser_context)
        except RecursionError as error:
            raise errors.Malformed("The body is nested too deep.") from error


class KeysetPagination(CursorPagination):
    """Lists as `{"results", "next"}` with `?limit=&cursor=&order_by=`.

    A view names what may be ordered by in `order_fields` (the first is the default); ties are broken by `tie_breaker`.
    """

    page_size = 50
    max_page_size = 500
    page_size_query_param = "limit"
    tie_breaker = "pk"

    def get_ordering(self, request: Any, queryset: Any, view: Any) -> tuple[str, ...]:
        allowed = tuple(getattr(view, "order_fields", ("-created_at",)))
        wanted = request.query_params.get("order_by", allowed[0])
        names = {field.removeprefix("-") for field in allowed}
        if wanted.removeprefix("-") not in names:
            raise errors.Invalid(
                f"Lists here can be ordered by {', '.join(sorted(names))}, each with an optional leading '-'.",
                fields={"order_by": wanted[:100]},
            )
        direction = "-" if wanted.startswith("-") else ""
        return (wanted, f"{direction}{self.tie_breaker}")

    def paginate_queryset(self, queryset: Any, request: Any, view: Any = None) -> Any:
        try:
            return super().paginate_queryset(queryset, request, view)
        except (drf.NotFound, DjangoValidationError, ValueError) as error:
            # A cursor of another list or another order names a position that this one cannot compare with.
            raise errors.Invalid(
                "This cursor is not one of this list: begin again without it.",
                fields={"cursor": request.query_params.get("cursor", "")[:200]},
            ) from error

    def get_page_size(self, request: Any) -> int:
        return whole_number_asked(request, self.page_size_query_param, self.page_size, self.max_page_size)

    def get_paginated_response(self, data: Any) -> Response:
        link = self.get_next_link()
        cursor = parse_qs(urlsplit(link).query)[self.cursor_query_param][0] if link else None
        return Response({"results": data, "next": cursor})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["results", "next"],
            "properties": {"results": schema, "next": {"type": "string", "nullable": True}},
        }


def accepted(body: Any, location: str) -> Response:
    """202 for work that goes on after the answer, with where to watch it."""
    return Response(body, status=202, headers={"Location": location})
