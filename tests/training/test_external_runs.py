"""Runs that clients log stand beside the platform's own."""

import uuid
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from models_registry.models import Bundle
from tenants.scope import tenant_scope
from training import external_runs
from training.models import Run

LOGGED: dict[str, Any] = {
    "params": {"depth": 3, "kind": "tree", "shuffled": True},
    "tags": {"git": "abc"},
    "inputs": [{"name": "churn", "digest": "0a1b", "source_type": "local", "tags": {"context": "training"}}],
}


def begun(client, **changes):
    answer = client.post_json("api/v1/runs/external", {"name": "on my laptop", "experiment": "spring"} | changes)
    assert answer.status_code == 201, answer.content
    return answer.json()


def log(client, run, **logged):
    return client.post_json(f"api/v1/runs/external/{run['id']}/log", logged)


def points(*values, key="loss", **more):
    return [{"key": key, "value": value, "step": step, **more} for step, value in enumerate(values)]


def test_a_run_is_begun_logged_to_and_ended(scientist):
    run = begun(scientist, **LOGGED)
    assert (run["kind"], run["state"], run["name"], run["experiment"]) == (
        "external",
        "running",
        "on my laptop",
        "spring",
    )
    assert (run["params"], run["tags"]) == (LOGGED["params"], LOGGED["tags"])
    assert log(scientist, run, metrics=points(0.9, 0.5, 0.7), params={"rate": 0.1}).status_code == 204
    ended = scientist.patch_json(f"api/v1/runs/external/{run['id']}", {"state": "succeeded"})
    assert ended.status_code == 200, ended.content
    shown = scientist.get(f"api/v1/runs/{run['id']}").json()
    assert (shown["state"], shown["metrics"], shown["params"]["rate"]) == ("succeeded", {"loss": 0.7}, 0.1)
    assert shown["finished_at"] >= shown["started_at"]
    history = scientist.get(f"api/v1/runs/{run['id']}/metrics?key=loss").json()["results"]
    assert [(point["step"], point["value"]) for point in history] == [(0, 0.9), (1, 0.5), (2, 0.7)]
    (used,) = scientist.get(f"api/v1/runs/external/{run['id']}/inputs").json()["results"]
    assert used == LOGGED["inputs"][0]


def test_a_run_that_goes_on_has_no_end(scientist):
    run, path = begun(scientist), "api/v1/runs/external/{id}"
    scientist.patch_json(path.format(**run), {"state": "failed", "finished_at": "2030-01-01T00:00:00Z"})
    shown = scientist.get(f"api/v1/runs/{run['id']}").json()
    assert (shown["finished_at"], shown["duration_s"] > 0) == ("2030-01-01T00:00:00Z", True)
    assert scientist.patch_json(path.format(**run), {"state": "running"}).json()["finished_at"] is None


def test_the_last_value_is_that_of_the_highest_step(scientist):
    run = begun(scientist)
    log(scientist, run, metrics=[{"key": "loss", "value": 0.2, "step": 9}])
    log(scientist, run, metrics=[{"key": "loss", "value": 0.8, "step": 3, "at": "2031-01-01T00:00:00Z"}])
    assert scientist.get(f"api/v1/runs/{run['id']}").json()["metrics"] == {"loss": 0.2}


def test_a_parameter_keeps_its_value(scientist):
    run = begun(scientist, params={"depth": 3})
    assert log(scientist, run, params={"depth": 3}).status_code == 204
    refused = log(scientist, run, params={"depth": 4, "rate": 1}, metrics=points(1.0))
    assert refused.status_code == 409
    shown = scientist.get(f"api/v1/runs/{run['id']}").json()
    assert (shown["params"], shown["metrics"]) == ({"depth": 3}, {})


@pytest.mark.parametrize(
    ("logged", "field"),
    [
        ({"params": {"a": [1]}}, "params"),
        ({"params": {"a": "x" * 6_001}}, "params"),
        ({"tags": {"a": "x" * 8_001}}, "tags"),
        ({"tags": {"a": 1}}, "tags"),
        ({"inputs": [{"name": "churn", "digest": "0a1b", "tags": {"a": True}}]}, "inputs"),
        ({"metrics": [{"key": "", "value": 1}]}, "metrics"),
        ({"metrics": [{"key": "a", "value": "NaN"}]}, "metrics"),
        ({"metrics": [{"key": "a", "value": 1, "at": "0001-01-01T00:00:00+23:00"}]}, "metrics"),
        ({"metrics": points(*range(1_001))}, "metrics"),
        ({"inputs": [{"name": "a"}]}, "inputs"),
        ({"steps": 1}, "steps"),
    ],
    ids=["list", "param", "tag", "number", "boolean", "key", "nan", "year", "many", "digest", "unknown"],
)
def test_what_cannot_be_kept_is_refused_by_its_field(scientist, logged, field):
    answer = log(scientist, begun(scientist), **logged)
    assert answer.status_code == 422
    assert any(path.startswith(field) for path in answer.json()["error"]["fields"])


def test_a_history_is_bounded(scientist, monkeypatch):
    monkeypatch.setattr(external_runs, "MOST_HISTORY", 3)
    run = begun(scientist)
    assert log(scientist, run, metrics=points(1, 2)).status_code == 204
    answer = log(scientist, run, metrics=points(3, 4))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "history_full")


def test_files_are_kept_listed_replaced_and_downloaded(acme, scientist):
    run = begun(scientist)
    path = f"api/v1/runs/external/{run['id']}/artifacts"

    def send(content, **more):
        return scientist.post(path, {"file": SimpleUploadedFile("plot.png", content), **more})

    assert send(b"one").json()["path"] == "plot.png"
    kept = send(b"two", path="plots/loss.png")
    assert (kept.status_code, kept["Location"]) == (201, f"/t/acme/{path}/plots/loss.png")
    send(b"three", path="plots/loss.png")
    listed = scientist.get(path).json()["results"]
    assert [(file["path"], file["size_bytes"]) for file in listed] == [("plot.png", 3), ("plots/loss.png", 5)]
    got = scientist.get(f"{path}/plots/loss.png")
    assert (b"".join(got.streaming_content), got["X-Content-Type-Options"]) == (b"three", "nosniff")
    assert scientist.delete(f"{path}/plots/loss.png").status_code == 204
    assert scientist.get(f"{path}/plots/loss.png").status_code == 404
    assert send(b"x", path="../x").status_code == 422
    with tenant_scope(acme):
        acme.max_storage_bytes = 1
        acme.save()
    assert send(b"more than there is room for").json()["error"]["code"] == "quota_exceeded"
    with tenant_scope(acme):
        assert Bundle.objects.filter(pk__in=Run.objects.get(pk=run["id"]).artifacts.values("bundle")).count() == 1


def test_the_platforms_own_runs_are_not_logged_to(scientist, dataset):
    from tests.training.conftest import run_body

    own = scientist.post_json("api/v1/runs", run_body()).json()
    assert log(scientist, own, params={"a": 1}).status_code == 404
    assert log(scientist, {"id": uuid.uuid4()}, params={"a": 1}).status_code == 404


def test_runs_of_both_kinds_are_compared(scientist, dataset):
    from tests.training.conftest import run_body

    own = scientist.post_json("api/v1/runs", run_body(experiment="spring")).json()
    theirs = begun(scientist, params={"C": 0.5}, metrics=points(*range(300), key="accuracy"))
    found = scientist.get("api/v1/runs?experiment=spring&order_by=-metrics.accuracy").json()["results"]
    assert [run["id"] for run in found] == [theirs["id"]]
    compared = scientist.get(f"api/v1/runs/compare?ids={own['id']},{theirs['id']}").json()
    (both,) = (one for one in compared["params"] if one["name"] == "C")
    assert (both["values"], both["is_same"]) == ([0.5, 0.5], True)
    (curve,) = compared["curves"]
    assert len(curve["steps"]) <= 201
    assert (curve["steps"][0], curve["steps"][-1]) == (0, 299)
