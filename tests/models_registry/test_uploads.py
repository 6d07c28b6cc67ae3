"""Uploading and downloading versions over HTTP."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile

from models_registry.blobs import name_of
from models_registry.models import Blob, BundleFile, ModelVersion, RegisteredModel
from tenants.models import User
from tenants.scope import tenant_scope
from tests.clients import TenantClient

AT = "api/v1/models/churn/versions"
BOUNDARY = "b0undary"


@pytest.fixture
def client(acme: Any, client_for: Callable[..., Any]) -> Any:
    """A client of acme's, which has a model `churn`."""
    with tenant_scope(acme):
        RegisteredModel.objects.create(name="churn")
    return client_for(acme)


def send(client: Any, *parts: tuple[str, bytes], **extra: Any) -> Any:
    """POST a multipart body of parts: (what follows `form-data; `, content)."""
    body = b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode("utf-8", "surrogateescape")
        + content
        + b"\r\n"
        for head, content in parts
    )
    body += f"--{BOUNDARY}--\r\n".encode()
    return client.post(AT, body, content_type=f"multipart/form-data; boundary={BOUNDARY}", **extra)


def upload(client: Any, metadata: Any = None, **files: bytes) -> Any:
    """POST files by their paths, with metadata."""
    parts = [(f'name="file"; filename="{path}"', content) for path, content in files.items()]
    if metadata is not None:
        parts.append(('name="metadata"', json.dumps(metadata).encode()))
    return send(client, *parts)


def content_of(response: Any) -> bytes:
    return b"".join(response.streaming_content)


def fault_of(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


class TestUploading:
    """`POST versions`."""

    def test_a_file_becomes_a_version_that_is_to_be_inspected(self, client: Any) -> None:
        made = upload(client, **{"model.pkl": b"pickle"})

        assert made.status_code == 201
        assert made["Location"] == "/t/acme/api/v1/models/churn/versions/1"
        assert (made.json()["number"], made.json()["state"], made.json()["size_bytes"]) == (1, "pending", 6)

    def test_the_test_clients_own_multipart_works_too(self, client: Any) -> None:
        file = SimpleUploadedFile("model.pkl", b"pickle")

        assert client.post(AT, {"file": file, "metadata": '{"tags": {"a": "b"}}'}).json()["tags"] == {"a": "b"}

    def test_what_was_declared_is_kept(self, client: Any) -> None:
        declared = {
            "metrics": {"auc": 0.9, "n": 3},
            "params": {"depth": 3, "nested": {"a": [1, None]}},
            "description": "First",
            "tags": {"team": "risk"},
            "signature": {"inputs": [{"name": "x", "dtype": "float64", "shape": [-1, 4]}], "outputs": []},
            "input_example": [[1.0, 2.0, 3.0, 4.0]],
            "labels": ["no", "yes"],
            "architecture": [{"kind": "linear"}],
            "library_set": "sklearn",
        }

        made = upload(client, declared, **{"model.pkl": b"1"}).json()

        assert made["metrics_reported"] == declared["metrics"]
        assert (made["params"], made["description"], made["tags"]) == (
            declared["params"],
            declared["description"],
            declared["tags"],
        )
        assert set(made["metadata"]) == {"signature", "input_example", "labels", "architecture", "library_set"}

    def test_metadata_may_come_as_a_file(self, client: Any) -> None:
        made = send(
            client,
            ('name="metadata"; filename="m.json"', b'{"description": "here"}'),
            ('name="file"; filename="a.pkl"', b"1"),
        )

        assert made.json()["description"] == "here"

    def test_a_path_in_a_name_makes_a_folder(self, client: Any) -> None:
        upload(client, **{"MLmodel": b"flavors", "data/nested/model.pkl": b"1", "data/ä b.txt": b"2"})

        files = client.get(f"{AT}/1/files").json()["results"]

        assert [file["path"] for file in files] == ["MLmodel", "data/nested/model.pkl", "data/ä b.txt"]

    def test_a_session_uploads_with_its_token_in_the_header(self, acme: Any, client: Any) -> None:
        session = TenantClient(acme.base_path, enforce_csrf_checks=True)
        session.force_login(User.objects.get(email="admin@acme.test"))
        part = ('name="file"; filename="a/b.pkl"', b"1")
        assert fault_of(send(session, part)) == (403, "csrf_failed")
        session.cookies["csrftoken"] = "t" * 32

        made = send(session, part, HTTP_X_CSRFTOKEN="t" * 32)

        assert made.status_code == 201
        assert client.get(f"{AT}/1/files").json()["results"][0]["path"] == "a/b.pkl"

    def test_the_same_request_twice_makes_one_version(self, client: Any) -> None:
        part = ('name="file"; filename="a.pkl"', b"1")
        first = send(client, part, HTTP_IDEMPOTENCY_KEY="once")
        again = send(client, part, HTTP_IDEMPOTENCY_KEY="once")

        assert (again.status_code, again.json()["number"]) == (201, first.json()["number"])
        assert len(client.get(AT).json()["results"]) == 1

    @pytest.mark.parametrize(
        "name",
        [
            "/etc/passwd",
            "../model.pkl",
            "a/../../b",
            "a/./b",
            "a//b",
            "a/",
            "a\\\\b",
            "C:/model.pkl",
            "a\x01b",
            "a\x7f",
            "x" * 256,
            "/".join(["x" * 100] * 6),
        ],
    )
    def test_a_name_that_leaves_the_bundle_is_refused(self, acme: Any, client: Any, name: str) -> None:
        assert fault_of(send(client, (f'name="file"; filename="{name}"', b"1"))) == (422, "bad_file_name")
        with tenant_scope(acme):
            assert not Blob.objects.exists()

    def test_a_nul_in_a_name_is_refused(self, client: Any) -> None:
        assert send(client, ("name=\"file\"; filename*=utf-8''a%00b", b"1")).status_code == 422

    @pytest.mark.parametrize(
        "names", [("a", "a"), ("a/Model.pkl", "a/model.pkl"), ("a", "a/b"), ("caf\u00e9", "cafe\u0301")]
    )
    def test_names_that_meet_are_refused(self, client: Any, names: tuple[str, str]) -> None:
        parts = [(f'name="file"; filename="{name}"', b"1") for name in names]

        assert fault_of(send(client, *parts)) == (422, "bad_file_name")

    def test_no_file_is_said(self, client: Any) -> None:
        assert fault_of(send(client, ('name="metadata"', b"{}"))) == (422, "no_file")
        assert fault_of(send(client, ('name="file"', b"no name"))) == (422, "no_file")
        assert fault_of(send(client)) == (422, "no_file")

    def test_an_unknown_part_is_said(self, client: Any) -> None:
        response = send(client, ('name="file"; filename="a"', b"1"), ('name="metdata"', b"{}"))

        assert fault_of(response) == (400, "malformed")
        assert "metdata" in response.json()["error"]["fields"]

    @pytest.mark.parametrize(
        ("metadata", "status"),
        [
            (b"{", 400),
            (b"[" * 50_000, 400),
            (b"[]", 422),
            (b'{"metric": {}}', 422),
            (b'{"metrics": {"a": "b"}}', 422),
            (b'{"metrics": {"a": NaN}}', 422),
            (b'{"metrics": {"a": 1e999}}', 422),
            (b'{"metrics": {"": 1}}', 422),
            (b'{"params": {"a": "\\u0000"}}', 422),
            (b'{"params": {"a": "\\ud800"}}', 422),
            (b'{"params": {"\\u0000": 1}}', 422),
            (b'{"params": []}', 422),
            (b'{"description": 7}', 422),
            (b'{"tags": {"a": 1}}', 422),
            (b'{"params": {"a": "%s"}}' % (b"x" * 65_536), 422),
            (b'{"labels": ["%s"]}' % (b"x" * (1 << 20)), 422),
            (b'{"input_example": ["%s"]}' % (b"x" * (1 << 20)), 422),
            (b'{"labels": "yes"}', 422),
            (b'{"signature": {}}', 422),
            (b'{"signature": {"inputs": [{"name": "x", "dtype": "float99"}]}}', 422),
            (b'{"library_set": 7}', 422),
            (b'{"architecture": 7}', 422),
        ],
    )
    def test_wrong_metadata_is_said_before_a_file_is_stored(
        self, acme: Any, client: Any, metadata: bytes, status: int
    ) -> None:
        response = send(client, ('name="file"; filename="a"', b"1"), ('name="metadata"', metadata))

        assert response.status_code == status
        assert response.json()["error"]["fields"]
        with tenant_scope(acme):
            assert not Blob.objects.exists()

    @pytest.mark.parametrize("cut", [1, 30, 60])
    def test_a_body_that_was_cut_makes_no_version(self, client: Any, cut: int) -> None:
        body = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nxyz'.encode()

        response = client.post(AT, body[:-cut], content_type=f"multipart/form-data; boundary={BOUNDARY}")

        assert response.status_code in (400, 422)

    def test_json_is_no_upload(self, client: Any) -> None:
        assert fault_of(client.post_json(AT, {})) == (415, "unsupported_media_type")

    def test_an_unknown_model_takes_no_version(self, client: Any) -> None:
        response = client.post("api/v1/models/nope/versions", {"file": SimpleUploadedFile("a", b"1")})

        assert fault_of(response) == (404, "not_found")

    def test_an_upload_over_the_limit_is_refused_unread(self, acme: Any, client: Any) -> None:
        acme.max_artifact_bytes = 1000
        acme.save()

        class Unread(io.BytesIO):
            def read(self, *args: Any) -> bytes:
                raise AssertionError("the body was read")

        response = client.post(
            AT,
            b"",
            content_type="multipart/form-data; boundary=x",
            CONTENT_LENGTH="9000000",
            **{"wsgi.input": Unread()},
        )

        assert fault_of(response) == (413, "too_large")

    def test_an_upload_a_little_over_the_limit_is_refused(self, acme: Any, client: Any) -> None:
        acme.max_artifact_bytes = 4
        acme.save()

        assert fault_of(upload(client, **{"a": b"12345"})) == (413, "too_large")

    def test_an_upload_over_what_is_left_is_refused(self, acme: Any, client: Any) -> None:
        acme.max_storage_bytes = 4
        acme.save()

        response = upload(client, **{"a": b"12345"})

        assert fault_of(response) == (403, "quota_exceeded")
        assert "4 of this tenant's 4" in response.json()["error"]["message"]


class TestDownloading:
    """`files`, `files/{path}` and `artifact`."""

    def test_one_file_comes_back_as_it_was_uploaded(self, client: Any) -> None:
        content = bytes(range(256)) * 20_000
        upload(client, **{"data/model.pkl": content})

        response = client.get(f"{AT}/1/artifact")

        assert content_of(response) == content
        assert response["Content-Length"] == str(len(content))
        assert response["Content-Disposition"] == 'attachment; filename="model.pkl"'
        assert response["Content-Type"] == "application/octet-stream"
        assert response["X-Content-Type-Options"] == "nosniff"

    def test_several_come_as_a_zip_of_the_announced_length(self, client: Any) -> None:
        files = {"MLmodel": b"flavors", "data/ä.pkl": b"x" * 3_000_000, "empty": b""}
        upload(client, **files)

        response = client.get(f"{AT}/1/artifact")
        content = content_of(response)

        assert len(content) == int(response["Content-Length"])
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.testzip() is None
            assert {name: archive.read(name) for name in archive.namelist()} == files
        assert response["Content-Disposition"] == 'attachment; filename="churn-v1.zip"'

    def test_the_length_of_a_large_zip_is_right(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)  # what is large, to the zipfile module
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
        upload(client, **{"a": b"1" * 2000, "b": b"2" * 10, "c": b"3" * 3000, "d": b""})

        response = client.get(f"{AT}/1/artifact")

        assert len(content_of(response)) == int(response["Content-Length"])

    def test_a_file_is_had_by_its_path_whatever_the_client_accepts(self, client: Any) -> None:
        upload(client, **{"a/b.txt": b"1", "c": b"2"})

        response = client.get(f"{AT}/1/files/a/b.txt", HTTP_ACCEPT="text/plain")

        assert (response.status_code, content_of(response)) == (200, b"1")

    @pytest.mark.parametrize("name", ['a\\"b.pkl', "a;b.pkl", "ä.pkl", "%0d%0aSet-Cookie: x.pkl", "<script>.html"])
    def test_an_odd_name_stays_inside_its_header(self, client: Any, name: str) -> None:
        assert upload(client, **{name: b"1"}).status_code == 201

        response = client.get(f"{AT}/1/artifact")

        header = response["Content-Disposition"]
        assert header.startswith(('attachment; filename="', "attachment; filename*=utf-8''"))
        assert "\r" not in header
        assert "\n" not in header
        assert response["Content-Type"] == "application/octet-stream"

    def test_the_files_are_listed_with_their_hashes(self, client: Any) -> None:
        upload(client, **{"a": b""})

        assert client.get(f"{AT}/1/files").json()["results"] == [
            {"path": "a", "size_bytes": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
        ]

    def damage(self, acme: Any) -> None:
        """Change the last byte of each stored file."""
        with tenant_scope(acme):
            for file in BundleFile.objects.select_related("blob"):
                at = Path(settings.MODELS_ROOT, name_of(file.blob))
                at.write_bytes(at.read_bytes()[:-1] + b"!")

    def test_a_small_damaged_file_is_an_error_of_its_own(self, acme: Any, client: Any) -> None:
        upload(client, a=b"hello")
        self.damage(acme)

        assert fault_of(client.get(f"{AT}/1/artifact")) == (503, "corrupt_file")

    @pytest.mark.parametrize("files", [{"a": b"x" * 5_000_000}, {"a": b"x" * 5_000_000, "b": b"x"}])
    def test_a_large_damaged_one_never_ends_as_if_it_were_whole(
        self, acme: Any, client: Any, files: dict[str, bytes]
    ) -> None:
        from models_registry.blobs import CorruptFile

        upload(client, **files)
        self.damage(acme)
        response = client.get(f"{AT}/1/artifact")
        received: list[bytes] = []

        with pytest.raises(CorruptFile):
            received.extend(response.streaming_content)

        assert 0 < sum(map(len, received)) < int(response["Content-Length"])

    def test_a_file_in_the_database_streams_after_the_request_has_left_its_tenant(self, acme: Any, client: Any) -> None:
        acme.storage_alias = "database"
        acme.save()
        upload(client, a=b"x" * 3_000_000, b=b"y")

        response = client.get(f"{AT}/1/artifact")

        with zipfile.ZipFile(io.BytesIO(content_of(response))) as archive:
            assert archive.read("a") == b"x" * 3_000_000


def test_an_aborted_upload_leaves_no_version(acme: Any, client: Any) -> None:
    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 100_000:
                raise OSError("the client went away")
            return super().read(size)

    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'.encode()
    body = Breaks(head + bytes(1_000_000))

    response = client.generic(
        "POST",
        AT,
        b"",
        CONTENT_TYPE=f"multipart/form-data; boundary={BOUNDARY}",
        CONTENT_LENGTH="1000100",
        **{"wsgi.input": body},
    )

    assert response.status_code == 400
    with tenant_scope(acme):
        assert not ModelVersion.objects.exists()
        assert not Blob.objects.exists()
