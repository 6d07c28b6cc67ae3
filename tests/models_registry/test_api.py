"""The registry over HTTP: models, versions, what serves, aliases."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test.utils import CaptureQueriesContext

from models_registry import services
from models_registry.metadata import VersionMetadata
from models_registry.models import Activation, ModelVersion, RegisteredModel
from tenants.scope import tenant_scope

Make = Callable[..., ModelVersion]
V1 = "api/v1/models/churn/versions/1"


@pytest.fixture
def client(acme: Any, client_for: Callable[..., Any]) -> Any:
    """A client of acme's that may do everything."""
    return client_for(acme)


@pytest.fixture
def version(acme: Any, make_version: Make) -> ModelVersion:
    """Version 1 of `churn`, ready."""
    with tenant_scope(acme):
        return make_version(metadata=VersionMetadata(metrics={"auc": 0.9}, tags={"team": "risk"}))


def code_of(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


class TestModels:
    """`models` and `models/{name}`."""

    def test_a_model_is_made_and_shown(self, client: Any) -> None:
        body = {"name": "churn", "description": "Who leaves", "task": "classification", "tags": {"team": "risk"}}
        made = client.post_json("api/v1/models", body)

        assert made.status_code == 201
        assert made["Location"] == "/t/acme/api/v1/models/churn"
        shown = client.get("api/v1/models/churn").json()
        assert {name: shown[name] for name in body} == body
        assert (shown["active_version"], shown["latest_version"], shown["version_count"]) == (None, None, 0)

    def test_its_name_is_taken_once(self, client: Any) -> None:
        client.post_json("api/v1/models", {"name": "churn"})

        assert code_of(client.post_json("api/v1/models", {"name": "churn"})) == (409, "already_exists")

    def test_a_repeated_request_with_its_key_gets_the_same_answer(self, client: Any) -> None:
        key = {"HTTP_IDEMPOTENCY_KEY": "once"}
        first = client.post_json("api/v1/models", {"name": "churn"}, **key)
        again = client.post_json("api/v1/models", {"name": "churn"}, **key)

        assert (again.status_code, again.json()) == (201, first.json())

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "name"),
            ({"name": "a/b"}, "name"),
            ({"name": "a", "tags": {"x": 1}}, "tags"),
            ({"name": "a", "tags": {"x": "\0"}}, "tags"),
            ({"name": "a", "tags": {str(key): "ä" * 5000 for key in range(7)}}, "tags"),
            ({"name": "a", "tags": []}, "tags"),
            ({"name": "a", "description": 7 * ["x"]}, "description"),
            ({"name": "a", "nmae": "b"}, "nmae"),
        ],
    )
    def test_a_wrong_field_is_named(self, client: Any, body: Any, field: str) -> None:
        response = client.post_json("api/v1/models", body)

        assert code_of(response) == (422, "invalid_parameter")
        assert field in response.json()["error"]["fields"]

    @pytest.mark.parametrize("body", ["", "{", "[]", "7", '"x"', "[" * 100_000, '{"name": "a", "tags": {"x": NaN}}'])
    def test_a_body_that_is_none_is_no_bug(self, client: Any, body: str) -> None:
        response = client.post("api/v1/models", body, content_type="application/json")

        assert response.status_code in (400, 422)

    def test_it_is_changed(self, client: Any, version: ModelVersion) -> None:
        changed = client.patch_json("api/v1/models/churn", {"description": "new", "tags": {}})

        assert (changed.status_code, changed.json()["description"]) == (200, "new")

    def test_it_is_deleted_when_nothing_serves(self, client: Any, version: ModelVersion) -> None:
        client.post_json(f"{V1}/activate")
        assert code_of(client.delete("api/v1/models/churn")) == (409, "version_active")
        client.post_json("api/v1/models/churn/deactivate")

        assert client.delete("api/v1/models/churn").status_code == 204
        assert code_of(client.get("api/v1/models/churn")) == (404, "not_found")

    def test_the_list_is_filtered_ordered_and_paged(self, client: Any) -> None:
        for name, task in (("a1", "regression"), ("a2", "regression"), ("b1", "classification")):
            client.post_json("api/v1/models", {"name": name, "task": task})

        def names(query: str) -> list[str]:
            return [model["name"] for model in client.get(f"api/v1/models?{query}").json()["results"]]

        assert names("") == ["a1", "a2", "b1"]
        assert names("order_by=-name") == ["b1", "a2", "a1"]
        assert names("task=regression") == ["a1", "a2"]
        assert names("name=B") == ["b1"]
        first = client.get("api/v1/models?limit=2").json()
        assert names(f"limit=2&cursor={first['next']}") == ["b1"]

    @pytest.mark.parametrize("query", ["order_by=tags", "limit=0", "limit=x", "cursor=x", "task=%00", "name=%00"])
    def test_a_wrong_query_is_said_to_be_so(self, client: Any, query: str) -> None:
        assert client.get(f"api/v1/models?{query}").status_code == 422


class TestVersions:
    """`versions/{n}`."""

    def test_it_is_shown_with_its_standing(self, client: Any, version: ModelVersion) -> None:
        client.post_json(f"{V1}/activate")
        client.put("api/v1/models/churn/aliases/champion", {"version": 1}, content_type="application/json")

        shown = client.get(V1).json()

        assert (shown["model"], shown["number"], shown["state"], shown["reason"]) == ("churn", 1, "ready", None)
        assert (shown["is_active"], shown["aliases"], shown["size_bytes"]) == (True, ["champion"], 5)
        assert (shown["metrics"], shown["tags"]) == ({"auc": 0.9}, {"team": "risk"})

    def test_a_rejected_one_says_why(self, acme: Any, client: Any, make_version: Make) -> None:
        with tenant_scope(acme):
            make_version(ready=False).reject("unreadable_artifact", "It is no model.")

        shown = client.get(V1).json()

        assert (shown["state"], shown["reason"], shown["rejection_code"]) == (
            "rejected",
            "It is no model.",
            "unreadable_artifact",
        )
        assert code_of(client.post_json(f"{V1}/activate")) == (409, "version_not_ready")

    def test_its_description_tags_and_reported_metrics_are_changed(self, client: Any, version: ModelVersion) -> None:
        changed = client.patch_json(V1, {"description": "new", "tags": {"a": "b"}, "metrics": {"f1": 0.5}}).json()

        assert (changed["description"], changed["tags"], changed["metrics"]) == ("new", {"a": "b"}, {"f1": 0.5})

    @pytest.mark.parametrize(
        "body",
        [
            {"metrics": {"a": "b"}},
            {"metrics": {"a": True}},
            {"metrics": {"a": 10**400}},
            {"tags": {str(key): "x" * 6000 for key in range(12)}},
            {"metrics": {"m" * 90 + str(key): 0.5 for key in range(900)}},
            {"tags": 7},
            {"state": "ready"},
        ],
    )
    def test_what_may_not_be_changed_is_said(self, client: Any, version: ModelVersion, body: Any) -> None:
        assert client.patch_json(V1, body).status_code == 422
        assert client.get(V1).json()["metrics"] == {"auc": 0.9}

    def test_it_is_deleted_unless_it_is_used(self, client: Any, version: ModelVersion) -> None:
        client.put("api/v1/models/churn/aliases/champion", {"version": 1}, content_type="application/json")
        assert code_of(client.delete(V1)) == (409, "version_aliased")
        client.delete("api/v1/models/churn/aliases/champion")

        assert client.delete(V1).status_code == 204
        assert client.get(V1).status_code == 404

    def test_the_list_is_filtered(self, acme: Any, client: Any, version: ModelVersion, make_version: Make) -> None:
        with tenant_scope(acme):
            make_version(ready=False)

        def numbers(query: str) -> list[int]:
            listed = client.get(f"api/v1/models/churn/versions?{query}").json()["results"]
            return [one["number"] for one in listed]

        assert numbers("") == [2, 1]
        assert numbers("order_by=number") == [1, 2]
        assert numbers("state=ready") == [1]
        assert numbers("format=sklearn") == [1]
        assert client.get("api/v1/models/churn/versions?state=nice").status_code == 422

    def test_waiting_ends_when_the_inspection_does(self, client: Any, version: ModelVersion) -> None:
        assert client.get(f"{V1}?wait=60").json()["state"] == "ready"

    def test_waiting_ends_when_the_time_is_over(self, acme: Any, client: Any, make_version: Make) -> None:
        with tenant_scope(acme):
            make_version(ready=False)

        shown = client.get(f"{V1}?wait=0.3").json()

        assert (shown["state"], shown["progress"]) == ("pending", {"percent": 0.0, "stage": ""})
        assert client.get(f"{V1}?wait=1000").status_code == 422


class TestServing:
    """activate, deactivate, rollback, activations, aliases, activate-best."""

    def test_activating_answers_with_the_activation(self, client: Any, version: ModelVersion) -> None:
        done = client.post_json(f"{V1}/activate", {"reason": "first", "expected_version": 0})

        assert done.status_code == 200
        body = done.json()
        assert (body["model"], body["version"], body["number"], body["reason"]) == ("churn", 1, 1, "first")
        assert client.get("api/v1/models/churn").json()["active_version"] == 1

    def test_activating_again_adds_no_row(self, acme: Any, client: Any, version: ModelVersion) -> None:
        first = client.post_json(f"{V1}/activate")
        again = client.post_json(f"{V1}/activate")

        assert (again.status_code, again.json()) == (200, first.json())
        with tenant_scope(acme):
            assert Activation.objects.count() == 1

    def test_a_stale_expectation_is_a_conflict(self, client: Any, version: ModelVersion) -> None:
        response = client.post_json(f"{V1}/activate", {"expected_version": 3})

        assert code_of(response) == (409, "stale_expected_version")
        assert client.post_json(f"{V1}/activate", {"expected_version": -1}).status_code == 422

    def test_the_history_is_listed(self, client: Any, acme: Any, version: ModelVersion, make_version: Make) -> None:
        with tenant_scope(acme):
            make_version()
        client.post_json(f"{V1}/activate")
        client.post_json("api/v1/models/churn/versions/2/activate")
        client.post_json("api/v1/models/churn/rollback", {"reason": "worse"})
        client.post_json("api/v1/models/churn/deactivate")

        listed = client.get("api/v1/models/churn/activations").json()["results"]

        assert [(one["number"], one["version"], one["reason"]) for one in listed] == [
            (4, None, ""),
            (3, 1, "worse"),
            (2, 2, ""),
            (1, 1, ""),
        ]
        assert {one["actor"] for one in listed} == {"token:test"}

    def test_an_alias_is_set_moved_and_removed(
        self, client: Any, acme: Any, version: ModelVersion, make_version: Make
    ) -> None:
        with tenant_scope(acme):
            make_version()
        at = "api/v1/models/churn/aliases/champion"

        assert client.put(at, {"version": 1}, content_type="application/json").status_code == 201
        assert client.put(at, {"version": 2}, content_type="application/json").status_code == 200
        assert client.get(at).json()["version"] == 2
        assert client.delete(at).status_code == 204
        assert client.get(at).status_code == 404
        assert client.put(at, {"version": 9}, content_type="application/json").status_code == 404
        assert client.put(at, {"version": "x"}, content_type="application/json").status_code == 422
        odd = "api/v1/models/churn/aliases/a b"
        assert client.put(odd, {"version": 1}, content_type="application/json").status_code == 422

    def test_the_best_serves_and_the_answer_says_why(
        self, client: Any, acme: Any, version: ModelVersion, make_version: Make
    ) -> None:
        with tenant_scope(acme):
            make_version(metadata=VersionMetadata(metrics={"auc": 0.95}))

        best = client.post_json("api/v1/activate-best", {"model": "churn", "metric": "auc", "direction": "max"}).json()

        assert (best["model"], best["version"], best["value"]) == ("churn", 2, 0.95)
        assert best["activation"]["version"] == 2
        assert [one["version"] for one in best["compared"]] == [2, 1]
        assert "highest auc" in best["explanation"]

    @pytest.mark.parametrize(
        "body",
        [
            {"metric": "auc", "direction": "max"},
            {"metric": "auc", "direction": "max", "model": "churn", "task": "x"},
            {"metric": "auc", "direction": "up", "model": "churn"},
            {"direction": "max", "model": "churn"},
        ],
    )
    def test_the_best_of_what_must_be_said(self, client: Any, version: ModelVersion, body: Any) -> None:
        assert client.post_json("api/v1/activate-best", body).status_code == 422


UNKNOWN = [
    "api/v1/models/nope",
    "api/v1/models/%00",
    "api/v1/models/a%20b",
    "api/v1/models/nope/versions",
    "api/v1/models/nope/versions/1",
    "api/v1/models/churn/versions/2",
    "api/v1/models/churn/versions/99999999999999999999",
    f"{V1}/files/nope",
    f"{V1}/files/%00",
    f"{V1}/files/../model.pkl",
    "api/v1/models/churn/versions/2/files",
    "api/v1/models/churn/versions/2/artifact",
    "api/v1/models/churn/aliases/nope",
    "api/v1/models/churn/aliases/%00",
    "api/v1/models/nope/activations",
]


@pytest.mark.parametrize("path", UNKNOWN)
def test_whatever_is_unknown_is_not_found(client: Any, version: ModelVersion, path: str) -> None:
    assert code_of(client.get(path)) == (404, "not_found")


@pytest.mark.parametrize("path", ["models/churn/versions/2/activate", "models/nope/rollback", "models/nope/deactivate"])
def test_nothing_unknown_is_activated(client: Any, version: ModelVersion, path: str) -> None:
    assert code_of(client.post_json(f"api/v1/{path}")) == (404, "not_found")


def test_another_tenants_things_are_not_found(
    globex: Any, version: ModelVersion, client_for: Callable[..., Any]
) -> None:
    theirs = client_for(globex)

    assert theirs.get("api/v1/models").json()["results"] == []
    assert code_of(theirs.get(V1)) == (404, "not_found")
    assert code_of(theirs.get(f"{V1}/artifact")) == (404, "not_found")


READING = ["models", "models/churn", "models/churn/versions", "models/churn/versions/1", "models/churn/activations"]
WRITING = [("post_json", "models"), ("post_json", "models/churn/versions"), ("patch_json", "models/churn/versions/1")]
ADMINISTERING = [
    ("delete", "models/churn"),
    ("delete", "models/churn/versions/1"),
    ("post_json", "models/churn/versions/1/activate"),
    ("post_json", "models/churn/deactivate"),
    ("post_json", "models/churn/rollback"),
    ("post_json", "activate-best"),
    ("put", "models/churn/aliases/champion"),
    ("delete", "models/churn/aliases/champion"),
]


def test_a_reader_reads_and_writes_nothing(acme: Any, version: ModelVersion, client_for: Callable[..., Any]) -> None:
    reader = client_for(acme, "read")

    assert {reader.get(f"api/v1/{path}").status_code for path in READING} == {200}
    answers = [getattr(reader, verb)(f"api/v1/{path}", {}) for verb, path in WRITING + ADMINISTERING]
    assert {code_of(answer) for answer in answers} == {(403, "scope_required")}


def test_a_writer_activates_and_deletes_nothing(
    acme: Any, version: ModelVersion, client_for: Callable[..., Any]
) -> None:
    writer = client_for(acme, "write")

    answers = [getattr(writer, verb)(f"api/v1/{path}", {}) for verb, path in ADMINISTERING]
    assert {code_of(answer) for answer in answers} == {(403, "scope_required")}


@pytest.mark.parametrize(
    "path", ["models", "models/m0/versions", "models/m0/activations", "models/m0/versions/1/files"]
)
def test_a_list_takes_as_many_queries_for_many_as_for_few(
    acme: Any, client: Any, make_version: Make, path: str
) -> None:
    from django.db import connection

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(f"api/v1/{path}").status_code == 200
        return len(captured)

    def add() -> None:
        for index in range(3):
            version = make_version(f"m{index}")
            services.activate(version=version, actor="tests")
            services.set_alias(version=version, name=f"alias-{version.number}", actor="tests")

    with tenant_scope(acme):
        add()
    client.get("api/v1/models")  # notes the token's use, once a minute
    few = queries()
    with tenant_scope(acme):
        for _ in range(3):
            add()
        assert RegisteredModel.objects.count() == 3

    assert queries() == few
    assert few <= 12
