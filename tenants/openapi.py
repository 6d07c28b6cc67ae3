"""The OpenAPI document of a surface, made from its views."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer2, OpenApiYamlRenderer
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.idempotency import Idempotent
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
ERROR_ANSWER = {
    "description": "What went wrong.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
IDEMPOTENCY_KEY = {
    "in": "header",
    "name": "Idempotency-Key",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
    "description": "The same key and body get the same answer for 24 hours; another body under it is refused (422). "
    "Secrets that the first answer showed are missing in a repeated one.",
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


class SurfaceGenerator(SchemaGenerator):
    """Adds what all views of a surface share: its address, the form of errors, and Idempotency-Key."""

    def get_schema(self, request: Any = None, public: bool = False) -> Any:
        document = super().get_schema(request, public)  # type: ignore[no-untyped-call]
        document["servers"] = [{"url": request.META.get("SCRIPT_NAME") or "/"}]
        document.setdefault("components", {}).setdefault("schemas", {})["Error"] = ERROR
        for methods in document["paths"].values():
            for operation in methods.values():
                operation["responses"].setdefault("default", ERROR_ANSWER)
        self._add_keys(document["paths"])
        return document

    def _add_keys(self, paths: dict[str, Any]) -> None:
        for path, _, method, view in self._get_paths_and_endpoints():  # type: ignore[no-untyped-call]
            operation = paths.get(path, {}).get(method.lower())
            if operation and method == "POST" and isinstance(view, Idempotent):
                operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)


class SchemaView(SpectacularAPIView):
    """The OpenAPI document of the surface that it is asked on: JSON, or YAML with `?format=yaml`."""

    permission_classes = (IsKnown,)
    renderer_classes = (OpenApiJsonRenderer2, OpenApiYamlRenderer)  # type: ignore[assignment]
    generator_class = SurfaceGenerator

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        self.urlconf = getattr(request, "urlconf", None)
        response: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
        return response
