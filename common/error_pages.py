"""What is answered where no view answers: JSON to programs, a page to people."""

import logging
import sys

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from common.errors import Unavailable
from common.http import as_platform_error, error_headers, error_response, is_api, refusal, request_id_of

log = logging.getLogger(__name__)

PAGES = {
    400: ("bad_request", "This request cannot be read", "The address or the form was not what this site expects."),
    403: ("denied", "You may not see this", "Your account does not open this page."),
    404: ("not_found", "There is nothing here", "The address may be mistyped, or what was here is gone."),
    413: ("too_large", "This is more than fits", "The files are larger than this tenant may upload."),
    503: ("unavailable", "A part of the platform is away", "Try again in a moment."),
    500: ("internal_error", "Something broke on our side", "The request has been logged; try again later."),
}


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400."""
    return answer(request, 400)


def denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler403."""
    return answer(request, 403, str(exception))


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler404."""
    return answer(request, 404)


def broken(request: HttpRequest) -> HttpResponse:
    """Django's handler500: nothing of the bug but the id that the log has it under; 503 where a part is away."""
    error = as_platform_error(sys.exc_info()[1])
    if isinstance(error, Unavailable):
        response = error_response(error, request) if is_api(request) else answer(request, 503)
        response["Retry-After"] = error_headers(error).get("Retry-After", "2")
        return response
    return answer(request, 500)


def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Django's CSRF_FAILURE_VIEW."""
    return answer(
        request, 403, "The form was open for too long, or cookies are blocked: go back, reload and try again."
    )


def answer(request: HttpRequest, status: int, message: str = "") -> HttpResponse:
    """A status's answer in the form that its reader expects."""
    code, title, usual = PAGES[status]
    if is_api(request):
        return refusal(request, status, code, message or f"{title}.")
    context = {"status": status, "title": title, "message": message or usual, "request_id": request_id_of(request)}
    try:
        return render(request, "error.html", context, status=status)
    except Exception:  # what is broken may be what pages are made of
        log.exception("error_page_broken")
        return HttpResponse(f"{title}. {usual} ({context['request_id']})", status=status, content_type="text/plain")
