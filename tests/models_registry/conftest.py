"""The three storages, each the real thing, a fourth that knows nothing of us, and tenants that keep files in them."""

import io
import json
import os
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tenantry.stack.process import die_with_parent
from tenants.scope import tenant_scope

ALIASES = ("filesystem", "database", "s3", "custom")
BUCKET, ACCESS_KEY, SECRET_KEY = "tenantry-tests", "testkey", "testsecret"
PORTS = [
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
]
PORTS += ["s3.port.iceberg", "s3.port.lance"]
START_LIMIT_S = 60.0


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict[str, Any]]:
    """A SeaweedFS with an empty bucket on random loopback ports; gives the options of an S3 storage."""
    with tempfile.TemporaryDirectory(prefix="tenantry-s3-") as folder:
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        weed = _start_weed(Path(folder), ports)
        try:
            options = {
                "bucket_name": BUCKET,
                "access_key": ACCESS_KEY,
                "secret_key": SECRET_KEY,
                "endpoint_url": f"http://127.0.0.1:{ports['s3.port']}",
                "region_name": "us-east-1",
                "file_overwrite": True,
            }
            _await_bucket(weed, options)
            yield options
        finally:
            os.killpg(weed.pid, signal.SIGKILL)
            weed.wait()


@pytest.fixture(autouse=True)
def _own_folders(settings: Any, tmp_path: Path) -> None:
    """Each test has a folder of models and a cache of its own: a rollback leaves the files behind."""
    settings.MODELS_ROOT = str(tmp_path / "models")
    settings.BLOB_CACHE_ROOT = str(tmp_path / "cache")
    folder = settings.STORAGES["filesystem"] | {"OPTIONS": {"location": settings.MODELS_ROOT}}
    custom = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(tmp_path / "custom")},
    }
    settings.STORAGES = settings.STORAGES | {"filesystem": folder, "custom": custom}


@pytest.fixture
def s3(s3_server: dict[str, Any], settings: Any) -> Any:
    """The storage `s3`, configured."""
    from django.core.files.storage import storages

    settings.STORAGES = settings.STORAGES | {
        "s3": {"BACKEND": "models_registry.s3.S3Storage", "OPTIONS": s3_server},
    }
    return storages["s3"]


@pytest.fixture(params=ALIASES)
def alias(request: pytest.FixtureRequest) -> str:
    """Each storage by its alias."""
    if request.param == "s3":
        request.getfixturevalue("s3")
    return str(request.param)


@pytest.fixture
def tenant(acme: Any, alias: str) -> Iterator[Any]:
    """A tenant in scope whose files go to each of the storages."""
    acme.storage_alias = alias
    acme.save()
    with tenant_scope(acme):
        yield acme


@pytest.fixture
def here(acme: Any) -> Iterator[Any]:
    """The tenant acme, in scope."""
    with tenant_scope(acme):
        yield acme


@pytest.fixture
def store() -> Callable[..., Any]:
    """`store(path=content, …)`: the bundle of these files."""
    from models_registry.blobs import IncomingFile, store_bundle

    def make(**files: bytes) -> Any:
        return store_bundle([IncomingFile(path, io.BytesIO(content)) for path, content in files.items()])

    return make


@pytest.fixture
def make_version() -> Callable[..., Any]:
    """`make_version(model="churn", ready=True, …)`: the next version, without an inspection."""
    from models_registry.blobs import IncomingFile
    from models_registry.services import register_version
    from tenants.models import Job, JobState

    def make(model: str = "churn", *, content: bytes = b"model", ready: bool = True, **options: Any) -> Any:
        files = [IncomingFile("model.pkl", io.BytesIO(content))]
        version = register_version(model_name=model, files=files, actor="tests", create=True, **options)
        if ready:
            version.accept(format="sklearn", task="classification", signature={})
            Job.objects.filter(object_id=str(version.pk)).update(state=JobState.SUCCEEDED)
        return version

    return make


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def _start_weed(folder: Path, ports: dict[str, int]) -> "subprocess.Popen[bytes]":
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    keys = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    identities = {"identities": [{"name": "tests", "credentials": keys, "actions": actions}]}
    (folder / "s3.json").write_text(json.dumps(identities))
    (folder / "data").mkdir()
    argv = [str(Path(sysconfig.get_path("scripts")) / "weed"), "server", f"-dir={folder}/data", "-ip=127.0.0.1"]
    argv += ["-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.config={folder}/s3.json", "-master.telemetry=false"]
    argv += ["-volume.max=40", "-master.volumeSizeLimitMB=64"]
    argv += [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            argv,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )


def _await_bucket(weed: "subprocess.Popen[bytes]", options: dict[str, Any]) -> None:
    """Make the bucket and see that it takes an object: the S3 port opens before its volumes do."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=options["endpoint_url"],
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name=options["region_name"],
        config=Config(retries={"max_attempts": 0}, connect_timeout=1, read_timeout=10),
    )
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        assert weed.poll() is None, "SeaweedFS ended"
        try:
            client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
            return
        except (BotoCoreError, ClientError):
            assert time.monotonic() < deadline, "SeaweedFS does not take objects"
            time.sleep(0.1)
