"""The OpenAPI document of both surfaces: whole, valid, and what the API does whatever it is sent."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, transaction
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.validation import validate_schema
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import CoverageScenario
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tenantry.urls import TENANT_SURFACE
from tenantry.wsgi import application
from tenants.openapi import SurfaceGenerator
from tests.clients import TenantClient
from tests.furnished import TENANT_ID, Furnished

SURFACES = {"tenant": TENANT_SURFACE, "operator": None}
BASE_PATH = f"/t/{TENANT_ID}"
# Besides these examples, every boundary that the document names is tried (schemathesis calls it coverage).
EXAMPLES = 3
CONFIG: dict[str, Any] = {
    "generation": {
        "deterministic": True,
        "max-examples": EXAMPLES,
        "database": "none",
        "allow-x00": False,  # a NUL is refused wherever it comes; see test_hostile_input
        "with-security-parameters": False,
    },
    "phases": {"examples": {"enabled": False}, "coverage": {"unexpected-methods": ["DELETE", "PATCH", "QUERY"]}},
    "operations": [{"include-path": "/api/v1/status", "generation": {"max-examples": 1}}],  # asks Celery for a second
    "output": {"sanitization": {"enabled": False}},
}
# Whether these take a body that is right in form depends on what there is, and on what is in a file.
DEPENDING = {
    ("DELETE", "/api/v1/tenants/{tenant_id}"),
    ("PATCH", "/api/v1/models/{name}/deployment"),
    ("PATCH", "/api/v1/tenants/{tenant_id}"),
    ("POST", "/api/v1/batch-jobs"),
    ("POST", "/api/v1/datasets"),
    ("POST", "/api/v1/documents"),
    ("POST", "/api/v1/models/{name}/predict"),
    ("POST", "/api/v1/models/{name}/versions"),
    ("POST", "/api/v1/predict"),
    ("POST", "/api/v1/models/{name}/versions/{number}/evaluate"),
    ("POST", "/api/v1/runs"),
    ("POST", "/api/v1/runs/custom"),
    ("POST", "/api/v1/runs/external/{external_id}/artifacts"),
    ("POST", "/api/v1/searches"),
    ("POST", "/api/v1/tenants"),
    ("POST", "/api/v1/tokens"),
}


def document_of(surface: str) -> dict[str, Any]:
    """The document of a surface, as a client reads it."""
    document = SurfaceGenerator(urlconf=SURFACES[surface]).get_schema(public=True)
    loaded: dict[str, Any] = json.loads(OpenApiJsonRenderer().render(document))
    return loaded


cached_document_of = cache(document_of)


def schema_of(surface: str, base_path: str) -> Any:
    """The same for schemathesis, which calls the WSGI application in this process."""
    config = SchemathesisConfig.from_dict(json.loads(json.dumps(CONFIG)))
    document = cached_document_of(surface) | {"servers": [{"url": base_path}]}
    schema = schemathesis.openapi.from_dict(document, config=config)
    schema.app = application
    return schema


asked_who: set[str] = set()  # operations that have refused a good request once its token was taken away
tenants_api = schema_of("tenant", BASE_PATH)
operators_api = schema_of("operator", "/")
any_fixture_will_do = hypothesis_settings(suppress_health_check=list(HealthCheck), deadline=None)


@pytest.mark.parametrize("surface", SURFACES)
def test_the_document_is_valid_and_made_without_a_warning(surface: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = document_of(surface)

    assert not GENERATOR_STATS, capsys.readouterr().err
    validate_schema(document)


@pytest.mark.parametrize("surface", SURFACES)
def test_every_operation_says_how_it_refuses(surface: str) -> None:
    components = cached_document_of(surface)["components"]
    for told, operation in operations(surface):
        assert {"400", "401", "403", "503"} <= set(operation["responses"]), told
        assert "default" not in operation["responses"], told
        assert operation["security"] == [{"bearerAuth": []}, {"basicAuth": []}, {"sessionAuth": []}], told
        for status, answer in operation["responses"].items():
            if status >= "400" and "$ref" in answer:
                shared = components["responses"][answer["$ref"].rpartition("/")[2]]
                assert shared["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}
        if "requestBody" in operation:
            assert {"413", "422"} <= set(operation["responses"]), told
        if "{" in told:
            assert "404" in operation["responses"], told


def test_creating_is_repeatable_and_says_where() -> None:
    keyed = {told for told, operation in operations("tenant") if "Idempotency-Key" in parameters(operation)}
    creating = {told for told, operation in operations("tenant") if set(operation["responses"]) & {"201", "202"}}
    adding = {told for told in keyed if told.endswith("/log")}  # twice the same points would be twice as many
    assert creating - {"PUT /api/v1/models/{name}/aliases/{alias}"} == keyed - adding
    assert len(adding) == 1
    for told, operation in operations("tenant"):
        if later := operation["responses"].get("202"):
            assert later["headers"]["Location"]["required"], told


def test_lists_say_how_they_are_read() -> None:
    lists = {told: operation for told, operation in operations("tenant") if "cursor" in parameters(operation)}
    assert len(lists) == 15, sorted(lists)
    for told, operation in lists.items():
        found = parameters(operation)
        assert found["order_by"]["default"] in found["order_by"]["enum"], told
        assert found["limit"] == {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}, told


def test_the_document_is_served_with_its_address(furnished: Furnished) -> None:
    for base_path, token in ((BASE_PATH, furnished.token), ("", furnished.operator_token)):
        answer = TenantClient(base_path, token).get("api/v1/schema")
        assert answer.status_code == 200
        assert answer.json()["servers"] == [{"url": base_path or "/"}]


@tenants_api.parametrize()
@any_fixture_will_do
def test_a_tenants_api_does_what_it_says(case: Any, furnished: Furnished) -> None:
    try_out(case, furnished, furnished.token)


@operators_api.parametrize()
@any_fixture_will_do
def test_the_operators_api_does_what_it_says(case: Any, furnished: Furnished) -> None:
    try_out(case, furnished, furnished.operator_token)


def try_out(case: Any, furnished: Furnished, token: str) -> None:
    """Send one request and hold its answer to the document; what it has changed is undone."""
    if is_moot(case):
        return
    if case.path_parameters and not case.meta.is_negative_at(ParameterLocation.PATH):
        values = furnished.path_values(case.path)
        case.path_parameters = {name: values[name] for name in case.path_parameters}
    without: list[Any] = [positive_data_acceptance] if depends(case) else []
    if case.path == "/api/v1/status":
        without.append(not_a_server_error)  # 503 is how it says that a part of the stack is away, as it is here
    if case.operation.label in asked_who:
        without.append(ignored_auth)
    with undone():
        answer = case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, excluded_checks=without)
    if answer.status_code < 300:
        asked_who.add(case.operation.label)


def is_moot(case: Any) -> bool:
    """Whether it says nothing new: a text of another type is a text in an address, and every list reads its alike."""
    tried = case.meta.phase.data
    if getattr(tried, "scenario", None) != CoverageScenario.INCORRECT_TYPE:
        return False
    if tried.parameter in ("limit", "order_by"):
        return bool(case.path != "/api/v1/models")
    parameter = case.operation.query.get(tried.parameter)
    return parameter is not None and parameter.definition["schema"].get("type") == "string"


def depends(case: Any) -> bool:
    """Whether more than its form decides if a request is accepted."""
    if (case.method, case.path) in DEPENDING or "cursor" in (case.query or {}):
        return True
    body = case.body if isinstance(case.body, dict) else {}
    named = [body[name] for name in ("tags", "metrics") if isinstance(body.get(name), dict)]
    return any("" in names for names in named)  # OpenAPI 3.0 has no word for what a key may be


def operations(surface: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation, with its method and path."""
    for path, methods in cached_document_of(surface)["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def parameters(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The schemas of an operation's parameters by their names."""
    return {parameter["name"]: parameter["schema"] for parameter in operation.get("parameters", [])}


@contextmanager
def undone() -> Iterator[None]:
    """Whatever a request changes is not there for the next one."""
    block = transaction.atomic()
    block._from_testcase = True  # type: ignore[attr-defined]  # as in Django's own TestCase, so that there may be durable blocks in it
    with block:
        yield
        transaction.set_rollback(True)


@pytest.fixture(autouse=True)
def _one_connection() -> Iterator[None]:
    """Requests leave the test's connection open, as they do under Django's own client."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)
