"""A tenant's tables over HTTP: uploaded once, listed, looked into, deleted."""

import hashlib
import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.http import HttpRequest
from django.middleware.csrf import get_token
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from models_registry import blobs
from models_registry.models import Blob, Bundle
from tenants import services
from tenants.journal.models import AuditEvent
from tenants.scope import tenant_scope
from tests.clients import TenantClient
from tests.training.conftest import customers, run_body, upload
from training.models import Dataset, DatasetVersion


def test_an_upload_is_kept_under_its_name_and_digest(scientist, acme):
    answer = upload(scientist)
    assert answer.status_code == 201
    digest = hashlib.sha256(customers()).hexdigest()
    body = answer.json()
    assert (body["name"], body["digest"], body["state"]) == ("customers", digest, "ready")
    assert body["columns"] == ["age", "city", "spent", "left"]
    assert (body["row_count"], body["size_bytes"]) == (200, len(customers()))
    assert body["created_by"] == "token:test"
    assert answer["Location"] == f"/t/acme/api/v1/datasets/customers/versions/{digest}"
    assert scientist.get(answer["Location"].removeprefix("/t/acme/")).json() == body


def test_the_same_bytes_again_are_the_version_that_is_there(scientist, acme):
    first = upload(scientist)
    again = upload(scientist)
    assert (again.status_code, again.json()) == (200, first.json())
    with tenant_scope(acme):
        assert DatasetVersion.objects.count() == 1
        assert Blob.objects.count() == 1


def test_the_same_bytes_under_another_name_are_stored_once(scientist, acme):
    upload(scientist)
    assert upload(scientist, "clients").status_code == 201
    with tenant_scope(acme):
        assert DatasetVersion.objects.count() == 2
        assert Bundle.objects.count() == 1


def test_a_further_file_is_a_further_version(scientist, dataset):
    newer = upload(scientist, content=customers(seed=1)).json()
    listed = scientist.get("api/v1/datasets").json()["results"]
    assert [(row["name"], row["versions"], row["digest"]) for row in listed] == [("customers", 2, newer["digest"])]
    versions = scientist.get("api/v1/datasets/customers/versions").json()["results"]
    assert [version["digest"] for version in versions] == [newer["digest"], dataset["digest"]]
    assert scientist.get("api/v1/datasets/customers").json()["digest"] == newer["digest"]


def test_an_upload_is_in_the_audit_trail(scientist, dataset, acme):
    with tenant_scope(acme):
        event = AuditEvent.objects.get(action="dataset.upload")
        assert event.actor == "token:test"
        assert event.target == f"customers@{dataset['digest'][:12]}"


def test_an_upload_with_a_key_is_answered_once(scientist, acme):
    key = {"HTTP_IDEMPOTENCY_KEY": uuid.uuid4().hex}
    first = upload(scientist, **key)
    again = upload(scientist, **key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert upload(scientist, content=customers(seed=1), **key).status_code == 422


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "x" * 101, "caf\u00e9"])
def test_a_bad_name_is_refused(scientist, name):
    answer = upload(scientist, name)
    assert answer.status_code == 422
    assert "name" in answer.json()["error"]["fields"]


@pytest.mark.parametrize(
    ("content", "code", "where"),
    [
        (b"", "empty_input", "empty"),
        (b"a,b\n", "empty_input", "no rows"),
        (b"a,a\n1,2\n", "invalid_parameter", "line 1: the column 'a' comes twice"),
        (b"1,2\n3,4\n", "invalid_parameter", "line 1: there is no header"),
        (b"a,b\n1,2\n1\n", "invalid_parameter", "line 3: the row has 1 cell"),
        (b"a,b\n1,\xff\n", "invalid_parameter", "line 2: byte 3 is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "invalid_parameter", "line 1: byte 1 is not UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_refused_and_not_kept(scientist, acme, content, code, where):
    answer = upload(scientist, content=content)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, code)
    assert error["fields"]["file"].startswith(where)
    with tenant_scope(acme):
        assert not Dataset.objects.exists()
        assert not Blob.objects.exists()


def test_an_upload_without_a_file_or_name_says_so(scientist):
    answer = scientist.post("api/v1/datasets", {"nmae": "x"})
    assert answer.status_code == 422
    assert "There is no such field" in answer.json()["error"]["fields"]["nmae"]
    answer = scientist.post("api/v1/datasets", {})
    assert answer.json()["error"]["fields"].keys() == {"name", "file"}


def test_an_upload_that_is_no_form_is_refused(scientist):
    assert scientist.post_json("api/v1/datasets", {"name": "x"}).status_code == 415


def test_an_upload_over_the_tenants_limit_is_refused(acme, scientist):
    type(acme).objects.filter(pk=acme.pk).update(max_artifact_bytes=1000)
    assert upload(scientist).status_code == 413


def test_an_upload_over_the_operators_limit_is_refused(acme, scientist, settings):
    settings.DATASET_MAX_BYTES = len(customers()) - 1
    answer = upload(scientist)
    assert answer.status_code == 413
    assert "DATASET_MAX_BYTES" in answer.json()["error"]["message"]
    settings.DATASET_MAX_BYTES = len(customers())
    assert upload(scientist).status_code == 201


def test_a_list_of_versions_leaves_the_columns_out(scientist, dataset):
    listed = scientist.get("api/v1/datasets/customers/versions").json()["results"]
    assert listed == [{name: value for name, value in dataset.items() if name != "columns"}]


def test_a_preview_shows_the_first_rows(scientist, dataset):
    address = f"api/v1/datasets/customers/versions/{dataset['digest']}/preview"
    preview = scientist.get(f"{address}?rows=2").json()
    lines = customers().decode().splitlines()
    assert preview["columns"] == lines[0].split(",")
    assert preview["rows"] == [line.split(",") for line in lines[1:3]]
    assert preview["is_whole"] is False
    assert preview["columns_left_out"] == 0
    assert len(scientist.get(address).json()["rows"]) == 20


@pytest.mark.parametrize("rows", ["0", "101", "-1", "x", "1.5"])
def test_a_preview_is_bounded(scientist, dataset, rows):
    answer = scientist.get(f"api/v1/datasets/customers/versions/{dataset['digest']}/preview?rows={rows}")
    assert answer.status_code == 422
    assert "rows" in answer.json()["error"]["fields"]


@pytest.mark.parametrize(
    "path", ["nothing", "customers/versions/0000", "customers/versions/0000/preview", "nothing/versions", "a%00b"]
)
def test_what_is_not_there_is_404(scientist, dataset, path):
    assert scientist.get(f"api/v1/datasets/{path}").status_code == 404


def test_a_version_is_deleted_and_its_dataset_with_the_last(scientist, dataset, acme):
    newer = upload(scientist, content=customers(seed=1)).json()
    address = "api/v1/datasets/customers/versions/"
    assert scientist.delete(address + dataset["digest"]).status_code == 204
    with tenant_scope(acme):
        assert Dataset.objects.count() == 1
    assert scientist.delete(address + newer["digest"]).status_code == 204
    with tenant_scope(acme):
        assert not Dataset.objects.exists()


def test_a_dataset_is_deleted_with_all_its_versions(scientist, dataset, acme):
    upload(scientist, content=customers(seed=1))
    assert scientist.delete("api/v1/datasets/customers").status_code == 204
    with tenant_scope(acme):
        assert not DatasetVersion.objects.exists()
        assert AuditEvent.objects.filter(action="dataset.delete").count() == 2


def test_a_dataset_that_a_run_used_is_kept(scientist, dataset, acme):
    run = scientist.post_json("api/v1/runs", run_body()).json()
    upload(scientist, content=customers(seed=1))
    for path in ("customers", f"customers/versions/{dataset['digest']}"):
        answer = scientist.delete(f"api/v1/datasets/{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "in_use")
        assert run["id"] in answer.json()["error"]["message"]
    with tenant_scope(acme):
        assert DatasetVersion.objects.count() == 2


def test_a_datasets_bytes_stay_as_long_as_it_does(scientist, dataset, acme):
    with tenant_scope(acme):
        Blob.objects.update(touched_at=timezone.now() - timedelta(days=1))
        blobs.sweep()
    assert scientist.get(f"api/v1/datasets/customers/versions/{dataset['digest']}/preview").status_code == 200
    scientist.delete("api/v1/datasets/customers")
    with tenant_scope(acme):
        blobs.sweep()
        assert not Blob.objects.exists()


def test_a_reader_may_look_and_not_touch(acme, client_for, dataset):
    reader = client_for(acme, "read")
    assert reader.get("api/v1/datasets").status_code == 200
    assert upload(reader, "other").status_code == 403
    assert reader.delete("api/v1/datasets/customers").status_code == 403


def test_another_tenants_dataset_is_not_there(globex, client_for, dataset):
    assert client_for(globex, "admin").get("api/v1/datasets/customers").status_code == 404


def test_listing_takes_the_same_queries_however_long_the_list(scientist, acme):
    def queries():
        with CaptureQueriesContext(
            connection,
        ) as context:
            assert scientist.get("api/v1/datasets").status_code == 200
        return len(context)

    upload(scientist, "a")
    few = queries()
    for name in "bcde":
        upload(scientist, name, customers(seed=ord(name)))
    assert queries() == few
    with tenant_scope(acme):
        assert Dataset.objects.count() == 5


def test_somebody_who_is_logged_in_may_upload(acme, db):
    secret = "a long enough password"
    member = services.add_member(tenant=acme, email="ada@acme.test", role="data_scientist", actor="tests")[0]
    member.user.set_password(secret)
    member.user.save()
    browser = TenantClient(acme.base_path, enforce_csrf_checks=True)
    browser.force_login(member.user)
    assert upload(browser).status_code == 403
    token = get_token(HttpRequest())
    browser.cookies["csrftoken"] = token
    answer = upload(browser, HTTP_X_CSRFTOKEN=token)
    assert answer.status_code == 201, answer.content
    assert answer.json()["created_by"] == "ada@acme.test"
