"""A file of 300 MB through a real server and each storage, with memory that stays as it was."""

import hashlib
import http.client
import os
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.conf import settings as django_settings

from models_registry.blobs import name_of
from models_registry.models import BundleFile
from tenants.models import ApiToken
from tenants.scope import tenant_scope
from tests.models_registry.conftest import free_ports

MIB = 1 << 20
SIZE_BYTES = 300_000_000
STORED_BYTES = 150_000_000  # where a storage is tried without the server
ALLOWED_GROWTH_BYTES = 60 * MIB  # buffers of a piece or two at each stage
S3_GROWTH_BYTES = 100 * MIB  # and the parts that S3 is sent at once
PIECE = os.urandom(MIB)
HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="big.bin"\r\n\r\n'
TAIL = b"\r\n--x--\r\n"


def pieces(size_bytes: int = SIZE_BYTES) -> Iterator[bytes]:
    for start in range(0, size_bytes, MIB):
        yield PIECE[: min(MIB, size_bytes - start)]


def expected_sha256() -> str:
    digest = hashlib.sha256()
    for piece in pieces():
        digest.update(piece)
    return digest.hexdigest()


class Peak:
    """The most memory that a process and its children had, as long as the block lasts."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.growth_bytes = 0

    def __enter__(self) -> "Peak":
        self._before = self._now()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.growth_bytes = max(self.growth_bytes, self._now() - self._before)

    def _now(self) -> int:
        try:
            family = [self._process, *self._process.children(recursive=True)]
            return sum(process.memory_info().rss for process in family)
        except psutil.NoSuchProcess:
            return 0


@pytest.fixture
def server(settings: Any, tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A granian with one worker: its port and its pid."""
    [port] = free_ports(1)
    environment = os.environ | {"MODELS_ROOT": settings.MODELS_ROOT, "UPLOAD_TEMP_DIR": str(tmp_path / "uploads")}
    argv = [str(Path(sysconfig.get_path("scripts")) / "granian"), "--interface", "wsgi", "--port", str(port)]
    argv += ["--workers", "1", "--blocking-threads", "2", "--no-ws", "tenantry.wsgi:application"]
    with (tmp_path / "granian.log").open("wb") as log:
        granian = subprocess.Popen(argv, env=environment, stdout=log, stderr=log)
    try:
        _await_healthy(port, granian, tmp_path / "granian.log")
        yield port, granian.pid
    finally:
        granian.terminate()
        try:
            granian.wait(20)
        except subprocess.TimeoutExpired:
            granian.kill()
            granian.wait()


def _await_healthy(port: int, granian: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with request(port, "GET", "/healthz") as response:
                assert response.status == 200
            return
        except (ConnectionError, http.client.HTTPException):
            assert granian.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


@contextmanager
def request(port: int, method: str, path: str, **options: Any) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # it may answer before it was sent everything
            connection.request(method, path, **options)
        yield connection.getresponse()
    finally:
        connection.close()


def body(*files: bytes) -> Iterator[bytes]:
    yield HEAD
    yield from pieces()
    yield from files
    yield TAIL


def test_a_large_upload_and_download_through_a_server_leave_its_memory_flat(
    server: tuple[int, int], committed_tenant: Any
) -> None:
    port, pid = server
    _, secret = ApiToken.mint(name="large", tenant=committed_tenant, scopes=["admin"])
    bearer = {"Authorization": f"Bearer {secret}"}
    base = f"{committed_tenant.base_path}/api/v1/models"
    json_header = bearer | {"Content-Type": "application/json"}
    with request(port, "POST", base, body=b'{"name": "big"}', headers=json_header) as response:
        assert response.status == 201, response.read()
    length = str(len(HEAD) + SIZE_BYTES + len(TAIL))
    multipart = bearer | {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": length}

    with (
        Peak(pid) as upload,
        request(port, "POST", f"{base}/big/versions", body=body(), headers=multipart) as response,
    ):
        assert response.status == 201, response.read()
    digest = hashlib.sha256()
    with (
        Peak(pid) as download,
        request(port, "GET", f"{base}/big/versions/1/artifact", headers=bearer) as response,
    ):
        while piece := response.read(MIB):
            digest.update(piece)

    assert digest.hexdigest() == expected_sha256()
    assert upload.growth_bytes < ALLOWED_GROWTH_BYTES
    assert download.growth_bytes < ALLOWED_GROWTH_BYTES
    _a_damaged_file_breaks_off(port, bearer, base, committed_tenant)


def _a_damaged_file_breaks_off(port: int, bearer: dict[str, str], base: str, tenant: Any) -> None:
    with tenant_scope(tenant):
        file = BundleFile.objects.select_related("blob").get()
        with Path(django_settings.MODELS_ROOT, name_of(file.blob)).open("r+b") as stored:
            stored.write(b"damaged")

    with (
        request(port, "GET", f"{base}/big/versions/1/artifact", headers=bearer) as response,
        pytest.raises(http.client.IncompleteRead),
    ):
        response.read()


def test_an_upload_over_the_limit_is_refused_by_a_server_before_it_was_sent(
    server: tuple[int, int], committed_tenant: Any
) -> None:
    port, _ = server
    _, secret = ApiToken.mint(name="large", tenant=committed_tenant, scopes=["admin"])
    bearer = {"Authorization": f"Bearer {secret}"}
    base = f"{committed_tenant.base_path}/api/v1/models"
    with request(port, "POST", base, body=b'{"name": "big"}', headers=bearer | {"Content-Type": "application/json"}):
        pass
    announced = bearer | {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(1 << 40)}

    with request(port, "POST", f"{base}/big/versions", body=iter([HEAD]), headers=announced) as response:
        assert response.status == 413


STORER = """
    import hashlib, os, sys
    import django
    django.setup()
    from django.conf import settings
    from models_registry import blobs
    from tenants.models import Tenant
    from tenants.scope import tenant_scope

    class Source:
        def __init__(self, size):
            self.left, self.piece = size, os.urandom(1 << 20)
        def read(self, size=-1):
            size = min(size if size >= 0 else self.left, self.left, 1 << 20)
            self.left -= size
            return self.piece[:size]

    tenant = Tenant.objects.get(tenant_id=sys.argv[1])
    tenant.storage_alias = sys.argv[2]
    with tenant_scope(tenant):
        blobs.store_bundle([blobs.IncomingFile("small", Source(100))])  # loads what is loaded at first use
        print("ready", flush=True)
        sys.stdin.readline()
        bundle = blobs.store_bundle([blobs.IncomingFile("big.bin", Source(int(sys.argv[3])))])
        with blobs.open_file(bundle.files.select_related("blob").get()) as stored:
            size = 0
            while piece := stored.read(1 << 20):
                size += len(piece)
        print(size, flush=True)
        sys.stdin.readline()
"""


@pytest.mark.parametrize(("alias", "allowed"), [("database", ALLOWED_GROWTH_BYTES), ("s3", S3_GROWTH_BYTES)])
def test_a_large_file_goes_through_a_storage_with_flat_memory(
    committed_tenant: Any, alias: str, allowed: int, request: pytest.FixtureRequest
) -> None:
    environment = dict(os.environ)
    if alias == "s3":
        options = request.getfixturevalue("s3_server")
        environment |= {
            "AWS_STORAGE_BUCKET_NAME": options["bucket_name"],
            "AWS_ACCESS_KEY_ID": options["access_key"],
            "AWS_SECRET_ACCESS_KEY": options["secret_key"],
            "AWS_S3_ENDPOINT_URL": options["endpoint_url"],
            "AWS_S3_REGION_NAME": options["region_name"],
        }
    argv = [sys.executable, "-c", textwrap.dedent(STORER), committed_tenant.tenant_id, alias, str(STORED_BYTES)]
    with subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as storer:
        assert storer.stdout
        assert storer.stdin
        assert storer.stdout.readline() == "ready\n"
        with Peak(storer.pid) as peak:
            storer.stdin.write("\n")
            storer.stdin.flush()
            assert storer.stdout.readline() == f"{STORED_BYTES}\n"

    assert peak.growth_bytes < allowed
