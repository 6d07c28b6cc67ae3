"""The paths that the contract promises, and what each of them takes, as the OpenAPI document has them."""

import pytest

from tests.test_openapi import cached_document_of

VERSION = "models/{name}/versions/{number}"
DATASET = "datasets/{name}/versions/{digest}"
PAGE = "documents/{document_id}/pages/{number}"
TENANT_PATHS = {
    "whoami": "get",
    "members": "get post",
    "members/{member_id}": "get patch delete",
    "members/{member_id}/reset-link": "post",
    "tokens": "get post",
    "tokens/{token_id}": "get delete",
    "settings": "get patch",
    "audit": "get",
    "schema": "get",
    "models": "get post",
    "models/{name}": "get patch delete",
    "models/{name}/versions": "get post",
    VERSION: "get patch delete",
    f"{VERSION}/files": "get",
    f"{VERSION}/files/{{path}}": "get",
    f"{VERSION}/artifact": "get",
    f"{VERSION}/activate": "post",
    "models/{name}/deactivate": "post",
    "models/{name}/rollback": "post",
    "models/{name}/activations": "get",
    "models/{name}/deployment": "get patch",
    "models/{name}/shadow": "get",
    "models/{name}/aliases/{alias}": "get put delete",
    "activate-best": "post",
    "models/{name}/predict": "post",
    "predict": "post",
    "predictions/{prediction_id}": "get",
    "predictions/{prediction_id}/cancel": "post",
    "feedback": "post",
    "batch-jobs": "get post",
    "batch-jobs/{batch_id}": "get",
    "batch-jobs/{batch_id}/cancel": "post",
    "batch-jobs/{batch_id}/result": "get",
    "documents": "get post",
    "documents/{document_id}": "get delete",
    "documents/{document_id}/cancel": "post",
    "documents/{document_id}/retry": "post",
    "documents/{document_id}/result": "get",
    PAGE: "get",
    f"{PAGE}/image": "get",
    f"{PAGE}/overlay": "get",
    f"{PAGE}/crops/{{place}}": "get",
    "datasets": "get post",
    "datasets/{name}": "get delete",
    "datasets/{name}/versions": "get",
    DATASET: "get delete",
    f"{DATASET}/preview": "get",
    f"{DATASET}/profile": "get",
    "trainers": "get",
    "searches": "get post",
    "searches/{run_id}": "get",
    f"{VERSION}/evaluate": "post",
    "runs/custom": "post",
    "runs/external": "post",
    "runs/external/{external_id}": "patch",
    "runs/external/{external_id}/log": "post",
    "runs/external/{external_id}/inputs": "get",
    "runs/external/{external_id}/artifacts": "get post",
    "runs/external/{external_id}/artifacts/{path}": "get delete",
    "runs/{run_id}/evaluation": "get",
    "experiments": "get post",
    "runs": "get post",
    "runs/compare": "get",
    "runs/{run_id}": "get",
    "runs/{run_id}/cancel": "post",
    "runs/{run_id}/logs": "get",
    "runs/{run_id}/metrics": "get",
}
OPERATOR_PATHS = {
    "whoami": "get",
    "runs": "post",
    "runs/{group_id}": "get",
    "tenants": "get post",
    "tenants/{tenant_id}": "get patch delete",
    "status": "get",
    "schema": "get",
}
FILTERS = {
    "audit": "actor action target since until",
    "models": "task name",
    "models/{name}/shadow": "activation",
    "models/{name}/versions": "state format task",
    VERSION: "wait",
    "predictions/{prediction_id}": "wait",
    "batch-jobs": "state model",
    "batch-jobs/{batch_id}": "wait",
    "documents": "state model title",
    "documents/{document_id}": "wait",
    "documents/{document_id}/result": "format",
    "runs": "state experiment model trainer dataset digest created_by purpose parent order_by",
    "searches/{run_id}": "wait",
    DATASET: "wait",
    f"{DATASET}/profile": "wait",
    "runs/{run_id}": "wait",
    "runs/{run_id}/metrics": "key",
    "runs/compare": "ids",
    f"{DATASET}/preview": "rows",
}
UPLOADS = ("documents", "runs/custom", "runs/external/{external_id}/artifacts", "models/{name}/versions", "datasets")


@pytest.mark.parametrize(("surface", "promised"), [("tenant", TENANT_PATHS), ("operator", OPERATOR_PATHS)])
def test_the_api_has_the_paths_that_are_promised_and_no_others(surface: str, promised: dict[str, str]) -> None:
    paths = cached_document_of(surface)["paths"]
    found = {path.removeprefix("/api/v1/"): set(methods) for path, methods in paths.items()}
    assert found == {path: set(methods.split()) for path, methods in promised.items()}


@pytest.mark.parametrize("path", FILTERS)
def test_what_may_be_asked_of_a_path(path: str) -> None:
    parameters = cached_document_of("tenant")["paths"][f"/api/v1/{path}"]["get"]["parameters"]
    assert set(FILTERS[path].split()) <= {parameter["name"] for parameter in parameters if parameter["in"] == "query"}


@pytest.mark.parametrize("path", UPLOADS)
def test_uploads_are_multipart(path: str) -> None:
    body = cached_document_of("tenant")["paths"][f"/api/v1/{path}"]["post"]["requestBody"]
    assert list(body["content"]) == ["multipart/form-data"]


def test_long_work_answers_202() -> None:
    paths = cached_document_of("tenant")["paths"]
    accepting = {path for path, methods in paths.items() if "202" in methods.get("post", {}).get("responses", {})}
    assert accepting == {
        "/api/v1/batch-jobs",
        "/api/v1/documents",
        "/api/v1/documents/{document_id}/retry",
        "/api/v1/runs",
        "/api/v1/runs/custom",
        "/api/v1/searches",
        f"/api/v1/{VERSION}/evaluate",
        "/api/v1/predict",
        "/api/v1/models/{name}/predict",
    }
