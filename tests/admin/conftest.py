"""People who are logged in, and something for them to look at."""

import io
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tenants.models import Tenant
from tenants.scope import tenant_scope
from tests.clients import TenantClient


class Browser(TenantClient):
    """A client after whose requests the test is in the scope that it was in before: requests leave none behind."""

    def __init__(self, base_path: str) -> None:
        super().__init__(base_path)
        self.raise_request_exception = True

    def generic(self, *args: Any, **kwargs: Any) -> Any:
        before: Any = getattr(connection, "tenant", None)
        scope = tenant_scope(before) if isinstance(before, Tenant) else nullcontext()
        with scope:
            return super().generic(*args, **kwargs)


SIGNATURE = {
    "layout": "columns",
    "inputs": [{"name": "age", "dtype": "float64", "shape": [-1], "nullable": True}],
    "outputs": [{"name": "prediction", "dtype": "string", "shape": [-1], "nullable": False}],
    "classes": ["stays", "leaves"],
}


@pytest.fixture(autouse=True)
def _own_folders(settings: Any, tmp_path: Path) -> None:
    """Each test has a folder of models of its own: a rollback leaves the files behind."""
    settings.MODELS_ROOT = str(tmp_path / "models")
    folder = settings.STORAGES["filesystem"] | {"OPTIONS": {"location": settings.MODELS_ROOT}}
    settings.STORAGES = settings.STORAGES | {"filesystem": folder}


@pytest.fixture
def logged_in() -> Callable[..., TenantClient]:
    """`logged_in(tenant, role)`: a member's browser, or an operator's without a role; `at` sends it elsewhere."""
    from tenants.models import Membership, User

    def login(tenant: Any = None, role: str = "", at: Any = None) -> TenantClient:
        email = f"{role or 'operator'}@{tenant.tenant_id if tenant else 'platform'}.test"
        user, _ = User.objects.get_or_create(email=email, defaults={"is_superuser": not role, "is_staff": not role})
        if tenant and role:
            Membership.objects.get_or_create(tenant=tenant, user=user, defaults={"role": role})
        place = at or tenant
        client = Browser(place.base_path if place else "")
        client.force_login(user)
        return client

    return login


@pytest.fixture
def here(acme: Any) -> Iterator[Any]:
    """The tenant acme, in scope."""
    with tenant_scope(acme):
        yield acme


@pytest.fixture
def make_version() -> Callable[..., Any]:
    """`make_version(model="churn", state="ready", …)`: the next version in the tenant in scope, its job ended."""
    from models_registry.blobs import IncomingFile
    from models_registry.metadata import parse_metadata
    from models_registry.services import register_version
    from tenants.models import Job, JobState

    def make(model: str = "churn", state: str = "ready", content: bytes = b"model", **metadata: Any) -> Any:
        version = register_version(
            model_name=model,
            files=[IncomingFile("model.pkl", io.BytesIO(content))],
            metadata=parse_metadata(metadata),
            actor="tests",
            create=True,
        )
        version.state, version.format, version.signature = state, "sklearn-pickle", SIGNATURE
        version.inspection = {"type_name": "RandomForestClassifier", "made_with": {"scikit-learn": "1.9.0"}}
        version.save()
        if state in ("ready", "rejected"):
            Job.objects.filter(object_id=version.pk).update(state=JobState.SUCCEEDED)
        return version

    return make
