"""The short way to a prediction, for programs that ask with a token.

Django's handler, with its signals, its resolver and the middlewares for sessions, forms and pages, takes more time than
all that is particular to a prediction. So a request for one that brings a token goes from the WSGI server to the same
view under the same tenant's middleware, and by nothing else on its way. Whatever has no token, or meets what Django
has to answer, goes the ordinary way, which answers the same.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any

from django.core.handlers.wsgi import WSGIRequest
from django.http import Http404, HttpRequest, HttpResponse
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.security import SecurityMiddleware
from django.utils.log import log_response

from common.requests import AddressMiddleware, RequestIdMiddleware
from inference import api, mlflow_scoring
from inference.open_inference import views as open_inference
from tenants.addressing import WsgiApplication
from tenants.connections import close_surplus
from tenants.middleware import TenantMiddleware
from tenants.models import Tenant
from tenants.scope import own

View = Callable[..., HttpResponse]

# What is asked thousands of times a second; `urlpatterns` name the same paths for everybody else.
PATHS: Sequence[tuple[re.Pattern[str], View]] = (
    (re.compile(r"/api/v1/models/(?P<name>[^/]+)/predict"), api.predict),
    (re.compile(r"/api/v1/predict"), api.predict),
    (re.compile(r"/v2/models/(?P<name>[^/]+)/infer"), open_inference.infer),
    (re.compile(r"/v2/models/(?P<name>[^/]+)/versions/(?P<version>[^/]+)/infer"), open_inference.infer),
    (re.compile(r"/models/(?P<name>[^/]+)/invocations"), mlflow_scoring.invocations),
)


class PredictionRequest(WSGIRequest):
    """A request with the view that answers it."""

    view: View
    arguments: Mapping[str, str]
    tenant: Tenant | None


class Shortcut:
    """WSGI middleware that answers such requests itself; it stands behind `TenantPaths`."""

    def __init__(self, application: WsgiApplication) -> None:
        self.application = application
        self._answer = RequestIdMiddleware(AddressMiddleware(TenantMiddleware(_answer)))
        self._headers: dict[bool, list[tuple[str, str]]] = {}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = _prediction_asked(environ)
        if request is None:
            return self.application(environ, start_response)
        opened = own.connection.connection
        try:
            response = self._answer(request)
            if own.connection.connection is not opened:  # what was asked was not all remembered
                close_surplus()
        except Exception:  # Django's handler meets it again, and knows what to log and to answer
            if hasattr(request, "_body"):
                environ["wsgi.input"] = BytesIO(request._body)
            return self.application(environ, start_response)
        if response.status_code >= 400:
            log_response("%s: %s", response.reason_phrase, request.path, response=response, request=request)
        content = response.content
        length = ("Content-Length", str(len(content)))
        start_response(
            f"{response.status_code} {response.reason_phrase}",
            [*response.items(), length, *self._usual_headers(request)],
        )
        return [content]

    def _usual_headers(self, request: HttpRequest) -> list[tuple[str, str]]:
        """What Django's own middlewares add to every answer."""
        is_secure = request.is_secure()
        if is_secure not in self._headers:
            response = HttpResponse(content_type="")
            XFrameOptionsMiddleware(_answer).process_response(request, response)
            SecurityMiddleware(_answer).process_response(request, response)
            self._headers[is_secure] = [pair for pair in response.items() if pair[0] != "Content-Type"]
        return self._headers[is_secure]


def _prediction_asked(environ: dict[str, Any]) -> PredictionRequest | None:
    """The request, if it is one that can go the short way."""
    if "HTTP_AUTHORIZATION" not in environ or environ.get("REQUEST_METHOD") != "POST":
        return None
    path = environ.get("PATH_INFO", "")
    for pattern, view in PATHS:
        if (found := pattern.fullmatch(path)) and path.isascii():
            request = PredictionRequest(environ)
            request.view, request.arguments = view, found.groupdict()
            return request
    return None


def _answer(request: HttpRequest) -> HttpResponse:
    assert isinstance(request, PredictionRequest)
    if request.tenant is None:
        raise Http404  # there are no predictions on the operator's surface
    return request.view(request, **request.arguments)
