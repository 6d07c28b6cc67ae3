"""The OpenAPI document of a surface, made from its views."""

from collections.abc import Iterable
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer2, OpenApiYamlRenderer
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.operations import REFUSALS
from tenants.permissions import IsKnown

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id"],
            "properties": {
                "code": {"type": "string", "description": "Stable; branch on it."},
                "message": {"type": "string", "description": "What to do, for people."},
                "fields": {"type": "object", "additionalProperties": {"type": "string"}},
                "request_id": {"type": "string"},
            },
        }
    },
}
CONTENT = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
REQUEST_ID = {"schema": {"type": "string"}, "description": "The request's id, in the log too.", "required": True}
REQUEST_ID_HEADER = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
OTHER_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}},
    429: {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "required": True}},
    503: {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}},
}


class CallerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How a caller shows who they are."""

    target_class = "tenants.authentication.CallerAuthentication"
    name = ["bearerAuth", "basicAuth", "sessionAuth"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        return [
            {"type": "http", "scheme": "bearer", "description": "A token of the tenant, or an operator's."},
            {"type": "http", "scheme": "basic", "description": "Any user name; the token is the password."},
            {
                "type": "apiKey",
                "in": "cookie",
                "name": "sessionid",
                "description": "A login; to write, a CSRF token too.",
            },
        ]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[Any]]]:
        return [{name: []} for name in self.name]  # one of them is enough


class SurfaceGenerator(SchemaGenerator):
    """Adds what all views of a surface share: its address, the forms of errors, and the request's id."""

    def get_schema(self, request: Any = None, public: bool = False) -> Any:
        document = super().get_schema(request, public)  # type: ignore[no-untyped-call]
        base_path = request.META.get("SCRIPT_NAME", "") if request else ""
        document["servers"] = [{"url": base_path or "/"}]
        components = document["components"]
        components["schemas"]["Error"] = ERROR
        components["headers"] = {"RequestId": REQUEST_ID}
        components["responses"] = {name: _refusal(status) for status, (name, _) in REFUSALS.items()}
        for methods in document["paths"].values():
            for operation in methods.values():
                _add_request_id(operation["responses"].values())
        return document


def _refusal(status: int) -> dict[str, Any]:
    headers = REQUEST_ID_HEADER | OTHER_HEADERS.get(status, {})
    return {"description": REFUSALS[status][1], "headers": headers, "content": CONTENT}


def _add_request_id(answers: Iterable[dict[str, Any]]) -> None:
    for answer in answers:
        if "$ref" not in answer:
            answer["headers"] = REQUEST_ID_HEADER | answer.get("headers", {})


class SchemaView(SpectacularAPIView):
    """The OpenAPI document of the surface that it is asked on: JSON, or YAML to who accepts only that."""

    permission_classes = (IsKnown,)
    renderer_classes = (OpenApiJsonRenderer2, OpenApiYamlRenderer)  # type: ignore[assignment]
    generator_class = SurfaceGenerator

    @extend_schema(operation_id="schema_retrieve", responses={200: OpenApiTypes.OBJECT})
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """This document."""
        self.urlconf = getattr(request, "urlconf", None)
        response: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
        return response
