"""What `predict` takes for a body, and that a repeated key gets the first answer."""

from typing import Any

import orjson
import pytest

from common.errors import Invalid, Malformed
from inference import bodies
from inference.models import AsyncPrediction
from tenants.scope import tenant_scope

ROWS = [[2.0, 0, 0, 0]]
PATH = "api/v1/models/churn/predict"


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b'{"instances": [1e999]}', b"\xff"])
def test_what_is_no_json_object_is_malformed(content: bytes) -> None:
    with pytest.raises(Malformed):
        bodies.parse(content)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"probabilites": True}, "probabilites"),
        ({"probabilities": "yes"}, "probabilities"),
        ({"async": 1}, "async"),
        ({"version": "1"}, "version"),
        ({"version": True}, "version"),
        ({"version": 1.5}, "version"),
        ({"alias": 1}, "alias"),
        ({"select": "auc"}, "select"),
        ({"deadline_ms": "9"}, "deadline_ms"),
    ],
)
def test_a_field_of_another_name_or_type_is_refused(body: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        bodies.parse(orjson.dumps({"instances": ROWS} | body))
    assert caught.value.fields.keys() == {field}


def test_null_is_as_good_as_absent() -> None:
    options = dict.fromkeys(bodies.OPTIONS)
    assert bodies.parse(orjson.dumps({"instances": ROWS} | options)) == {"instances": ROWS} | options


def test_a_repeated_key_queues_one_prediction(acme: Any, serving: Any, client_for: Any) -> None:
    client, body = client_for(acme, "predict"), {"instances": ROWS, "async": True}
    first = client.post_json(PATH, body, HTTP_IDEMPOTENCY_KEY="once")
    second = client.post_json(PATH, body, HTTP_IDEMPOTENCY_KEY="once")
    other = client.post_json(PATH, body | {"probabilities": True}, HTTP_IDEMPOTENCY_KEY="once")

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert first["Location"] == second["Location"]
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    with tenant_scope(acme):
        assert AsyncPrediction.objects.count() == 1


def test_rows_that_cannot_wait_in_the_database_are_refused(acme: Any, serving: Any, client_for: Any) -> None:
    table = {"columns": ["\0", "b", "c", "d"], "data": ROWS}
    answer = client_for(acme, "predict").post_json(PATH, {"dataframe_split": table, "async": True})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_parameter")


def test_another_method_is_answered_in_json(acme: Any, client_for: Any) -> None:
    answer = client_for(acme, "predict").get(PATH)
    assert (answer.status_code, answer["Allow"]) == (405, "POST")
    assert answer.json()["error"]["code"] == "method_not_allowed"
