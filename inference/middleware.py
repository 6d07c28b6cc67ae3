"""Requests for predictions go no further than they must."""

import re
from collections.abc import Callable, Sequence

from django.http import HttpRequest, HttpResponse

from inference import api, mlflow_scoring
from inference.open_inference import views as open_inference

View = Callable[..., HttpResponse]

# What is asked thousands of times a second. `urlpatterns` name the same paths, for everybody who does not come by here.
PATHS: Sequence[tuple[re.Pattern[str], View]] = (
    (re.compile(r"/api/v1/models/(?P<name>[^/]+)/predict"), api.predict),
    (re.compile(r"/api/v1/predict"), api.predict),
    (re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer"), open_inference.infer),
    (re.compile(r"/models/(?P<name>[^/]+)/invocations"), mlflow_scoring.invocations),
)


class PredictionsMiddleware:
    """Answers programs that ask for predictions with a token, without what only people's sessions need.

    It stands behind the tenant's middleware and before those for sessions, forms and log-ins, whose work would cost
    more than a prediction does. Whoever brings no token goes the ordinary way, to the same views.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if "HTTP_AUTHORIZATION" not in request.META or getattr(request, "tenant", None) is None:
            return self.get_response(request)
        for pattern, view in PATHS:
            if found := pattern.fullmatch(request.path_info):
                response = view(request, **found.groupdict())
                response.headers["Content-Length"] = str(len(response.content))
                return response
        return self.get_response(request)
