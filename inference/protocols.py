"""What the plain views of the other protocols share: who may ask, how errors look, and a body within bounds.

They are plain Django views for the same reason as `api.predict`: DRF costs more than a prediction.
"""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, cast

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt

from common.errors import Malformed, PlatformError, TooLarge
from common.http import error_response, refusal
from tenants.authentication import Caller, authenticate

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]


def answering(method: str, scope: str | None = None) -> Callable[[View[P]], View[P]]:
    """A view that answers requests of one method (HEAD counts as GET) by callers with this scope, or any caller where
    there is none. Errors take the form of the path's protocol."""
    methods = (method, "HEAD") if method == "GET" else (method,)

    def decorate(view: View[P]) -> View[P]:
        @wraps(view)
        def answer(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            try:
                _admit(authenticate(request), scope)
                if request.method in methods:
                    return view(request, *args, **kwargs)
            except PlatformError as error:
                return error_response(error, request)
            return _not_allowed(request, methods)

        return cast(View[P], csrf_exempt(answer))  # `authenticate` asks sessions for their CSRF token

    return decorate


def _admit(caller: Caller, scope: str | None) -> None:
    if scope is not None:
        caller.require(scope)


def _not_allowed(request: HttpRequest, methods: tuple[str, ...]) -> HttpResponse:
    response = refusal(request, 405, "method_not_allowed", f'Method "{request.method}" not allowed.')
    response["Allow"] = ", ".join(methods)
    return response


def content_of(request: HttpRequest) -> bytes:
    """The request's body.

    Raises:
        TooLarge: it is over the limit for requests that are held in memory. Malformed: it breaks off.
    """
    try:
        return request.body
    except RequestDataTooBig as error:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE >> 20
        raise TooLarge(f"A body has at most {limit} MiB; send fewer rows at once.") from error
    except UnreadablePostError as error:
        raise Malformed("The body could not be read to its end.") from error
