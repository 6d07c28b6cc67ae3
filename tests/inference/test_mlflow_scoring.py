"""MLflow's scoring protocol, by plain HTTP and by MLflow's own client."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

from tests.inference.conftest import by_plan, registered
from tests.inference.serving import served

ROWS = [[2.0, 0, 0, 0], [-2.0, 0, 0, 0]]
RIGHT = ["yes", "no"]
PEOPLE = [{"age": 65, "plan": "plus"}, {"age": 25, "plan": "basic"}]


@dataclass(frozen=True)
class Served:
    """A tenant over real HTTP with the models `churn` (a tensor of 4 features) and `people` (named columns)."""

    address: str
    base_path: str
    token: str

    def post(self, model: str, content: Any, kind: str = "application/json", **headers: str) -> requests.Response:
        body = content if isinstance(content, str | bytes) else json.dumps(content)
        url = f"http://{self.address}{self.base_path}/models/{model}/invocations"
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind} | headers
        return requests.post(url, data=body, headers=headers, timeout=30)

    def client(self, model: str) -> ScoringServerClient:
        client = ScoringServerClient("unused", 0)
        client.url_prefix = f"http://x:{self.token}@{self.address}{self.base_path}/models/{model}"
        return client


@pytest.fixture(scope="module")
def server(furnished):
    from models_registry import services
    from tenants.scope import tenant_scope

    with tenant_scope(furnished.tenant):
        people = registered("people", by_plan(), input_example={"age": [20], "plan": ["basic"]})
        services.activate(version=people, actor="tests")
        services.create_model(name="idle", actor="tests")
    with served() as address:
        yield Served(address, furnished.tenant.base_path, furnished.token)


@pytest.mark.parametrize(
    "body",
    [
        {"instances": ROWS},
        {"inputs": ROWS},
        {"dataframe_split": {"columns": ["a", "b", "c", "d"], "data": ROWS}},
        {"instances": ROWS, "params": {}},
    ],
)
def test_rows_come_in_each_of_mlflows_forms(server, body):
    answer = server.post("churn", body)
    assert (answer.status_code, answer.json()) == (200, {"predictions": RIGHT})
    assert answer.headers["X-Model-Version"] == "1"


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": PEOPLE},
        {"dataframe_split": {"columns": ["plan", "age"], "data": [["plus", 65], ["basic", 25]]}},
        {"inputs": {"age": [65, 25], "plan": ["plus", "basic"]}},
        {"instances": PEOPLE},
    ],
)
def test_named_columns_come_in_each_of_mlflows_forms(server, body):
    assert server.post("people", body).json() == {"predictions": [1, 0]}


@pytest.mark.parametrize(
    ("model", "table", "predictions"),
    [
        ("people", "plan,age\nplus,65\nbasic,25\n", [1, 0]),
        ("people", '\ufeffage,plan\r\n65,"plus"\r\n\r\n25,basic', [1, 0]),
        ("churn", "a,b,c,d\n2,0,0,0\n-2.0,0,0,1e-3\n", RIGHT),
    ],
)
def test_rows_come_as_csv(server, model, table, predictions):
    assert server.post(model, table.encode(), "text/csv; charset=utf-8").json() == {"predictions": predictions}


def test_mlflows_own_client_is_answered(server):
    churn, people = server.client("churn"), server.client("people")
    churn.ping()
    assert churn.get_version().startswith("tenantry ")
    assert churn.invoke(np.array(ROWS))["predictions"] == RIGHT
    assert people.invoke(pd.DataFrame(PEOPLE))["predictions"] == [1, 0]


@pytest.mark.parametrize(
    ("model", "content", "kind", "status", "code"),
    [
        ("churn", {"instances": ROWS, "params": {"alpha": 1}}, "application/json", 400, "INVALID_PARAMETER_VALUE"),
        ("churn", {"instances": [[1, 2]]}, "application/json", 400, "INVALID_PARAMETER_VALUE"),
        ("churn", {"instances": []}, "application/json", 400, "INVALID_PARAMETER_VALUE"),
        ("churn", {"instances": ROWS, "inputs": ROWS}, "application/json", 400, "BAD_REQUEST"),
        ("churn", {"rows": ROWS}, "application/json", 400, "BAD_REQUEST"),
        ("churn", "{", "application/json", 400, "BAD_REQUEST"),
        ("churn", "[]", "application/json", 400, "BAD_REQUEST"),
        ("churn", "a", "application/xml", 415, "BAD_REQUEST"),
        ("churn", b"\xff", "text/csv", 400, "BAD_REQUEST"),
        ("churn", "", "text/csv", 400, "BAD_REQUEST"),
        ("churn", 'a,b\n"1', "text/csv", 400, "BAD_REQUEST"),
        ("churn", "a,b,c,d\n1,2,3\n", "text/csv", 400, "INVALID_PARAMETER_VALUE"),
        ("churn", "a,b,c,d\n1,2,3,x\n", "text/csv", 400, "INVALID_PARAMETER_VALUE"),
        ("churn", "a,b,c,d\n1,2,3,nan\n", "text/csv", 400, "INVALID_PARAMETER_VALUE"),
        ("people", "plan,years\nplus,1\n", "text/csv", 400, "INVALID_PARAMETER_VALUE"),
        ("people", "plan,age\nplus,1_0\n", "text/csv", 400, "INVALID_PARAMETER_VALUE"),
        ("nope", {"instances": ROWS}, "application/json", 404, "RESOURCE_DOES_NOT_EXIST"),
        ("idle", {"instances": ROWS}, "application/json", 409, "RESOURCE_CONFLICT"),
    ],
)
def test_mistakes_are_told_in_mlflows_form(server, model, content, kind, status, code):
    answer = server.post(model, content, kind)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text
    assert answer.json()["message"]


def test_who_may_not_is_told_so_in_mlflows_form(server, furnished, client_for):
    assert (
        server.post("churn", {"instances": ROWS}, Authorization="Bearer no").json()["error_code"] == "UNAUTHENTICATED"
    )
    denied = client_for(furnished.tenant, "read").post_json("models/churn/invocations", {"instances": ROWS})
    assert (denied.status_code, denied.json()["error_code"]) == (403, "PERMISSION_DENIED")


def test_a_model_that_does_not_serve_does_not_answer_ping(server):
    with pytest.raises(Exception, match="409"):
        server.client("idle").ping()
