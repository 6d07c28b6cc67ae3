"""A version that names a declared library set: uploaded, inspected, activated, asked and downloaded over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.files.uploadedfile import SimpleUploadedFile

from models_registry.models import ModelVersion
from tenants.scope import tenant_scope
from tests.clients import TenantClient
from tests.runtimes import declared

AT = "api/v1/models/churn"


@pytest.fixture(scope="module")
def sets() -> Path:
    """The folder of the declared set, which the session's model host finds from now on."""
    built = declared.folder()
    place = Path(django_settings.VAR, "library-sets")
    place.mkdir(mode=0o755, exist_ok=True)
    if not (place / declared.NAME).exists():
        (place / declared.NAME).symlink_to(built / declared.NAME)
    return built


@pytest.fixture
def client(acme: Any, client_for: Callable[..., Any], settings: Any) -> TenantClient:
    settings.WARM_UP_SECONDS = 0  # no worker runs here that could
    made: TenantClient = client_for(acme)
    made.post_json("api/v1/models", {"name": "churn"})
    return made


def inspected(client: TenantClient, acme: Any, artifact: bytes, **metadata: Any) -> dict[str, Any]:
    """The version as the API shows it after a worker has inspected it."""
    from models_registry import execution

    file = SimpleUploadedFile("model.pkl", artifact)
    made = client.post(f"{AT}/versions", {"file": file, "metadata": json.dumps(metadata)})
    assert made.status_code == 201, made.content
    with tenant_scope(acme):
        job = ModelVersion.objects.get(number=made.json()["number"]).inspection_job
        assert job is not None
        job.claim("tests")
        execution.inspect(job)
    shown: dict[str, Any] = client.get(f"{AT}/versions/{made.json()['number']}").json()
    return shown


def test_an_old_forest_is_served_from_the_set_it_names(
    model_host: str, sets: Path, client: TenantClient, acme: Any
) -> None:
    forest = declared.made_by_the_old(sets, "forest")

    version = inspected(client, acme, forest, library_set=declared.NAME)
    activated = client.post_json(f"{AT}/versions/{version['number']}/activate")
    answer = client.post_json(f"{AT}/predict", {"instances": [[0.0, 1, 2, 3], [76, 77, 78, 79]]})
    kept: Any = client.get(f"{AT}/versions/{version['number']}/artifact")

    assert version["state"] == "ready", version
    assert version["inspection"]["libraries"]["scikit-learn"] == declared.OLD_VERSION
    assert activated.status_code in (200, 201), activated.content
    assert answer.json()["predictions"] == [0, 1]
    assert b"".join(kept.streaming_content) == forest


def test_without_naming_it_the_uploader_is_told_which_set_would_do(
    model_host: str, sets: Path, client: TenantClient, acme: Any
) -> None:
    version = inspected(client, acme, declared.made_by_the_old(sets, "forest"))

    assert version["state"] == "rejected"
    assert f'Send it with "library_set": "{declared.NAME}".' in version["reason"]


def test_a_set_that_is_not_there_is_told_with_those_that_are(
    model_host: str, sets: Path, client: TenantClient, acme: Any
) -> None:
    version = inspected(client, acme, b"whatever", library_set="detectron2")

    assert version["rejection_code"] == "unknown_library_set"
    assert f"sklearn, torch, {declared.NAME}" in version["reason"]
