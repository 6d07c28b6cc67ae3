"""One form of errors, whatever they began as."""

import pytest
from django.core.exceptions import BadRequest, RequestDataTooBig
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import OperationalError
from django.http import Http404
from rest_framework import exceptions as drf
from rest_framework import serializers

from common import errors
from common.http import as_platform_error, error_headers, flatten, status_of


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (errors.Conflict("x", code="version_active"), 409, "version_active"),
        (drf.ValidationError({"name": ["Too long."]}), 422, "invalid_parameter"),
        (drf.ParseError("x"), 400, "malformed"),
        (drf.NotAuthenticated(), 401, "unauthenticated"),
        (drf.UnsupportedMediaType("x"), 415, "unsupported_media_type"),
        (drf.MethodNotAllowed("PUT"), 400, "method_not_allowed"),
        (drf.Throttled(wait=3), 429, "throttled"),
        (drf.PermissionDenied(), 403, "denied"),
        (Http404(), 404, "not_found"),
        (RequestDataTooBig(), 413, "too_large"),
        (BadRequest(), 400, "malformed"),
        (DjangoValidationError("x"), 422, "invalid_parameter"),
        (OperationalError(), 503, "unavailable"),
    ],
)
def test_what_a_caller_can_act_on_has_a_status_and_a_code(raised: Exception, status: int, code: str) -> None:
    error = as_platform_error(raised)

    assert error is not None
    assert (status_of(error), error.code) == (status, code)


def test_a_bug_is_nobodys_error() -> None:
    assert as_platform_error(KeyError("x")) is None


def test_fields_are_named_by_their_path() -> None:
    class Inner(serializers.Serializer[object]):
        size = serializers.IntegerField()

    class Outer(serializers.Serializer[object]):
        parts = Inner(many=True)

    serializer = Outer(data={"parts": [{"size": 1}, {"size": "x"}]})
    assert not serializer.is_valid()
    assert flatten(serializer.errors) == {"parts[1].size": "A valid integer is required."}


def test_waiting_and_logging_in_are_said_in_headers() -> None:
    assert error_headers(errors.Throttled("x", retry_after_s=0.2)) == {"Retry-After": "1"}
    assert error_headers(errors.Unauthenticated("x")) == {"WWW-Authenticate": 'Bearer realm="tenantry"'}
