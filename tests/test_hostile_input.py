"""Values that break careless code, in every place of the API that takes one: each is refused in the API's own words.

The places are those of the OpenAPI document, so that a new field or parameter is tried without a line here; a new body
needs one in BODIES.
"""

import copy
import hashlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.clients import TenantClient
from tests.furnished import Furnished
from tests.test_openapi import BASE_PATH, SURFACES, operations, undone
from tests.training.conftest import customers

ROWS = [[2.0, 0, 0, 0]]
DIGEST = hashlib.sha256(customers(40)).hexdigest()
RUN = {"trainer": "logistic_regression", "dataset": "customers", "digest": DIGEST, "target": "left", "model": "churn"}
# A body that is right, with a text, a number or an object in every field that there is.
LOGGED: dict[str, Any] = {
    "params": {"depth": 3}, "metrics": [{"key": "loss", "value": 0.5, "step": 1, "at": "2026-01-01T00:00:00Z"}],
    "tags": {"team": "a"}, "inputs": [{"name": "t", "digest": "d", "source": "s", "tags": {"context": "training"}}],
}  # fmt: skip
BODIES: dict[str, dict[str, Any]] = {
    "POST /api/v1/activate-best": {
        "model": "churn", "metric": "auc", "direction": "max", "dataset": "", "reason": "best",
    },
    "POST /api/v1/batch-jobs": {"model": "churn", "dataset": "customers", "version": 1, "probabilities": True},
    "POST /api/v1/experiments": {"name": "second"},
    "POST /api/v1/feedback": {"id": "0" * 32, "row": 1, "truth": {"label": "yes"}},
    "POST /api/v1/members": {"email": "new@furnished.test", "role": "viewer"},
    "PATCH /api/v1/members/{member_id}": {"role": "admin"},
    "POST /api/v1/models": {"name": "new", "description": "d", "task": "t", "tags": {"team": "a"}},
    "PATCH /api/v1/models/{name}": {"description": "d", "task": "t", "tags": {"team": "a"}},
    "PUT /api/v1/models/{name}/aliases/{alias}": {"version": 1},
    "PATCH /api/v1/models/{name}/deployment": {
        "split": [{"version": 1, "percent": 100}], "shadow": None, "lane": "direct", "pinned": False,
        "limits": {"rows": 1000, "call_seconds": 5.5}, "reason": "why", "expected_version": 1,
        "expected_activation": 1,
    },
    "POST /api/v1/models/{name}/deactivate": {"reason": "why", "expected_version": 1},
    "POST /api/v1/models/{name}/rollback": {"reason": "why"},
    "PATCH /api/v1/models/{name}/versions/{number}": {"description": "d", "tags": {"a": "b"}, "metrics": {"auc": 0.5}},
    "POST /api/v1/models/{name}/versions/{number}/activate": {"reason": "why", "expected_version": 1},
    "POST /api/v1/models/{name}/predict": {"instances": ROWS, "alias": "champion", "deadline_ms": 9000},
    "POST /api/v1/predict": {"instances": ROWS, "select": {"metric": "auc", "direction": "max"}, "async": True},
    "POST /api/v1/runs": RUN | {
        "params": {"C": 1}, "validation": {"kind": "holdout", "seed": 7}, "experiment": "first",
        "activate_if": {"metric": "roc_auc", "margin": 0.1},
    },
    "POST /api/v1/runs/external": {"name": "on my laptop", "experiment": "first", "model": "churn"} | LOGGED,
    "PATCH /api/v1/runs/external/{external_id}": {
        "name": "n", "state": "failed", "finished_at": "2026-01-01T00:00:00Z",
    },
    "POST /api/v1/runs/external/{external_id}/log": LOGGED,
    "POST /api/v1/searches": RUN | {
        "params": {"max_iter": 100}, "space": {"C": [0.1, 1], "max_iter": {"low": 10, "high": 100, "log": True}},
        "method": "bayes", "trials": 4, "metric": "roc_auc", "direction": "max", "seed": 1, "prune": True,
        "parallel": 2,
        "validation": {"kind": "kfold", "folds": 3}, "experiment": "first",
        "activate_if": {"metric": "roc_auc", "margin": 0.1},
    },
    "POST /api/v1/models/{name}/versions/{number}/evaluate": {
        "dataset": "customers", "digest": DIGEST, "target": "left",
    },
    "PATCH /api/v1/settings": {"name": "Furnished", "default_model": "churn", "lane": "direct"},
    "POST /api/v1/tokens": {"name": "new", "scopes": ["read"], "expires_in": "90d"},
    "POST /api/v1/tenants": {"tenantId": "newcomer", "name": "New", "admin": "a@new.test", "storage": "database"},
    "PATCH /api/v1/tenants/{tenant_id}": {"name": "New", "quotas": {"max_open_runs": 3}},
}  # fmt: skip
IN_BODIES = [
    "\0",
    "\ud800",
    "\N{PILE OF POO}" * 20_000,
    "",
    " \n",
    True,
    -1,
    2**31,
    10**400,
    1e308,
    None,
    [],
    {},
    {"\0": "\ud800"},
    {"": {"": []}},
]
RAW_BODIES = [
    b"",
    b"\xff",
    b"[]",
    b"null",
    b"1e999",
    b'{"a":' * 100_000,
    b"[" * 100_000,
    b'{"name": NaN}',
    b'{"\\ud800": 1}',
]
IN_ADDRESSES = [
    "%00",
    "%ff",
    "%ED%A0%80",
    "",
    "-1",
    "0",
    "9" * 5000,
    "%D9%A3",
    "--name",
    "x" * 5000,
    "%0d%0aX: y",
    "1e400",
]


@pytest.fixture
def clients(furnished: Furnished) -> dict[str, TenantClient]:
    """A client of each surface."""
    return {
        "tenant": TenantClient(BASE_PATH, furnished.token),
        "operator": TenantClient("", furnished.operator_token),
    }


def all_operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for surface in SURFACES:
        for told, operation in operations(surface):
            yield surface, told, operation


def test_every_body_has_an_example() -> None:
    json_bodies = {
        told
        for _, told, operation in all_operations()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }
    assert json_bodies == set(BODIES)


@pytest.mark.parametrize("told", BODIES)
def test_the_examples_are_right(told: str, furnished: Furnished, clients: dict[str, TenantClient]) -> None:
    method, path = told.split(" ")
    surface = "operator" if "/tenants" in path else "tenant"
    with undone():
        answer = clients[surface].generic(
            method,
            path.format(**furnished.path_values(path)),
            json.dumps(BODIES[told]),
            content_type="application/json",
        )
    assert answer.status_code < 300 or told.endswith("/rollback"), answer.content  # there is nothing to go back to


def test_no_value_in_a_body_breaks_it(furnished: Furnished, clients: dict[str, TenantClient]) -> None:
    for surface, told, _ in all_operations():
        for body in spoilt(BODIES.get(told, {})):
            send(clients[surface], told, furnished, json.dumps(body).encode())


def test_no_body_breaks_the_parser(furnished: Furnished, clients: dict[str, TenantClient]) -> None:
    for surface, told, operation in all_operations():
        if "requestBody" in operation:
            for content in RAW_BODIES:
                for content_type in (
                    *operation["requestBody"]["content"],
                    "text/plain",
                    "multipart/form-data; boundary=x",
                ):
                    send(clients[surface], told, furnished, content, content_type)


def test_no_value_in_an_address_breaks_it(furnished: Furnished, clients: dict[str, TenantClient]) -> None:
    for surface, told, operation in all_operations():
        for parameter in operation.get("parameters", []):
            for value in IN_ADDRESSES:
                if parameter["in"] == "query":
                    send(clients[surface], told, furnished, query=f"{parameter['name']}={value}")
                elif parameter["in"] == "path" and value:
                    send(clients[surface], told, furnished, values={parameter["name"]: value})


def test_the_last_of_several_values_counts(furnished: Furnished, clients: dict[str, TenantClient]) -> None:
    answer = clients["tenant"].get("api/v1/trainers?limit=x&limit=1")
    assert answer.status_code == 200
    assert clients["tenant"].get("api/v1/models?limit=x&limit=1").status_code == 200
    assert clients["tenant"].get("api/v1/models?limit=1&limit=x").status_code == 422


def send(
    client: TenantClient,
    told: str,
    furnished: Furnished,
    content: bytes = b"",
    content_type: str = "application/json",
    query: str = "",
    values: dict[str, str] | None = None,
) -> None:
    """Send a request; its answer is good, or an error in the API's own form, and never a bug."""
    method, path = told.split(" ")
    named = {name: quote(str(value)) for name, value in furnished.path_values(path).items()} | (values or {})
    address = path.format(**named) + (f"?{query}" if query else "")
    with undone():
        answer = client.generic(method, address, content, content_type=content_type)
        b"".join(answer.streaming_content) if answer.streaming else answer.content
    shown = f"{method} {address[:200]} {content[:200]!r} answers {answer.status_code}: {answer.content[:300]!r}"
    is_down = path == "/api/v1/status" and answer.status_code == 503
    assert answer.status_code < 500 or is_down or answer.json()["error"]["code"] == "deadline_exceeded", shown
    if answer.status_code >= 400 and not is_down:
        assert answer.json()["error"]["request_id"] == answer["X-Request-ID"], shown


def spoilt(body: Any) -> Iterator[Any]:
    """The body with one value replaced by each of IN_BODIES, for every value at any depth, and with one more field."""
    for place in places(body):
        for value in IN_BODIES:
            changed = copy.deepcopy(body)
            target = changed
            for step in place[:-1]:
                target = target[step]
            target[place[-1]] = value
            yield changed
    if body:
        yield body | {"\0\ud800": 1}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value inside, containers included."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield (*at, step)
        yield from places(inner, (*at, step))
