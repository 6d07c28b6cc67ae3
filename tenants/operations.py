"""What the OpenAPI document says of every operation beside its view's own words: how it may refuse, what it may be
asked, and how strictly it reads. The document's shared parts stand in `tenants.openapi`.
"""

from collections.abc import Iterable
from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

from common.http import KeysetPagination
from tenants.idempotency import Idempotent
from tenants.job_api import LONGEST_WAIT_S
from tenants.serializers import NAME_SCHEMA, Strict

REFUSALS: dict[int, tuple[str, str]] = {
    400: ("Malformed", "The request cannot be read, or can be read in two ways."),
    401: ("Unauthenticated", "No token, or one that is not valid here; an unknown tenant answers the same."),
    403: ("Denied", "The caller may not do this (`scope_required`), or the tenant is suspended (`tenant_suspended`)."),
    404: ("NotFound", "There is no such thing, or it is another tenant's."),
    409: ("Conflict", "The request is sound, but not in the present state of its object; the code says which."),
    413: ("TooLarge", "The body is larger than this tenant or this path takes."),
    415: ("UnsupportedMedia", "The body is of a type that this path does not read."),
    422: ("Invalid", "The request can be read, and what it says cannot be done; `fields` says where it is wrong."),
    429: ("Throttled", "A limit of the tenant is reached; try again after `Retry-After` seconds."),
    503: ("Unavailable", "A part of the platform is away; try again after `Retry-After` seconds."),
    504: ("TimedOut", "The deadline passed before the answer was there."),
}
ANYWHERE = (400, 401, 403, 503)
REFUSED = "refused"  # in a view's `responses`: this status is one of REFUSALS

LOCATION = OpenApiParameter(
    "Location",
    {"type": "string", "format": "uri-reference"},
    OpenApiParameter.HEADER,
    required=True,
    response=[201, 202],
    description="Where it is from now on.",
)
WAIT = OpenApiParameter(
    "wait",
    {"type": "number", "minimum": 0, "maximum": LONGEST_WAIT_S},
    description="Seconds to wait for an end before answering.",
)
IDEMPOTENCY_KEY = {
    "in": "header",
    "name": "Idempotency-Key",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
    "description": "The same key and body get the same answer for 24 hours; another body under it is refused (422). "
    "Secrets that the first answer showed are missing in a repeated one.",
}
MOMENT = {"type": "string", "format": "date-time"}
PATH_VALUES: dict[str, dict[str, Any]] = {
    "name": NAME_SCHEMA,
    "alias": NAME_SCHEMA,
    "digest": {"pattern": "^[0-9a-f]{64}$"},
    "number": {"minimum": 1},
    "member_id": {"minimum": 1},
}


def refusals(statuses: Iterable[int]) -> dict[str, Any]:
    """The responses of an operation that refuses with these statuses."""
    return {str(status): {"$ref": f"#/components/responses/{REFUSALS[status][0]}"} for status in sorted(statuses)}


class OperationSchema(AutoSchema):
    """One operation of the document; the default schema class of all views."""

    def _get_parameters(self) -> Any:
        parameters = super()._get_parameters()
        return [*parameters, IDEMPOTENCY_KEY] if self._is_repeatable() else parameters

    def _resolve_path_parameters(self, variables: Any) -> Any:
        parameters = super()._resolve_path_parameters(variables)  # type: ignore[no-untyped-call]
        for parameter in parameters:
            parameter["schema"] |= PATH_VALUES.get(parameter["name"], {})
        return parameters

    def _get_pagination_parameters(self) -> Any:
        paginator = self._get_paginator() if self._is_list_view() else None  # type: ignore[no-untyped-call]
        return _list_parameters(paginator, self.view) if isinstance(paginator, KeysetPagination) else []

    def _get_response_bodies(self, direction: Any = "response") -> Any:
        answers = super()._get_response_bodies(direction)
        return dict(sorted({**refusals(self._usual_refusals()), **answers}.items()))

    def _get_response_for_code(
        self, serializer: Any, status_code: Any, media_types: Any = None, direction: Any = "response"
    ) -> Any:
        if serializer == REFUSED:
            return refusals([int(status_code)])[status_code]
        return super()._get_response_for_code(serializer, status_code, media_types, direction)  # type: ignore[no-untyped-call]

    def _usual_refusals(self) -> set[int]:
        """The statuses of the errors that follow from what a request of this operation consists of."""
        statuses = set(ANYWHERE)
        parameters = self._get_parameters()
        if any(parameter["in"] == "path" for parameter in parameters):
            statuses.add(404)
        if any(parameter["in"] != "path" for parameter in parameters):
            statuses.add(422)
        if self._get_request_body() is not None:  # type: ignore[no-untyped-call]
            statuses |= {413, 415, 422}
        if self._is_repeatable():
            statuses.add(409)
        return statuses

    def _is_repeatable(self) -> bool:
        return self.method == "POST" and isinstance(self.view, Idempotent)

    def _get_serializer_name(self, serializer: Any, direction: Any, bypass_extensions: bool = False) -> str:
        name: str = super()._get_serializer_name(serializer, direction, bypass_extensions)
        return name.replace("RequestRequest", "Request")

    def _map_serializer(self, serializer: Any, direction: Any, bypass_extensions: bool = False) -> Any:
        schema = super()._map_serializer(serializer, direction, bypass_extensions)  # type: ignore[no-untyped-call]
        if direction == "request" and isinstance(serializer, Strict):
            schema |= {"additionalProperties": False, **serializer.also}
        return schema

    def _get_serializer_field_meta(self, field: Any, direction: Any) -> Any:
        meta = super()._get_serializer_field_meta(field, direction)  # type: ignore[no-untyped-call]
        if direction == "request" and _is_plain_text(field) and field.trim_whitespace and not field.allow_blank:
            meta["pattern"] = r"\S"  # text is trimmed before it is found to be empty
        return meta


def _is_plain_text(field: Any) -> bool:
    """Whether nothing but its length says what the field's text may be."""
    return type(field) is serializers.CharField


def _list_parameters(paginator: KeysetPagination, view: Any) -> list[dict[str, Any]]:
    fields = view.order_fields
    names = sorted({field.lstrip("-") for field in fields})
    limit = {"type": "integer", "minimum": 1, "maximum": paginator.max_page_size, "default": paginator.page_size}
    order = {"type": "string", "enum": [*names, *(f"-{name}" for name in names)], "default": fields[0]}
    return [
        {"in": "query", "name": "limit", "schema": limit, "description": "How many, at most."},
        {
            "in": "query",
            "name": "cursor",
            "schema": {"type": "string"},
            "description": "`next` of the page before; it goes with the same order and filters.",
        },
        {"in": "query", "name": "order_by", "schema": order, "description": "`-` turns the order around."},
    ]
