"""What a browser may do with a page of ours: load and run what this platform serves, and nothing else."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

# Alpine, with which the admin's frame comes, evaluates its attributes; no script stands in a page, and no style does.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-eval'",
        "style-src 'self'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)


class PagePolicyMiddleware:
    """Sends the policy with every HTML page."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.headers.get("Content-Type", "").startswith("text/html"):
            response.headers["Content-Security-Policy"] = POLICY
        return response
