"""Fixtures that every app's tests share: two provisioned tenants, and clients that speak to them."""

import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker: Any) -> None:
    """The session's own database, migrated, with the tenants acme and globex in it."""
    from django.conf import settings

    from tenants import provisioning, services

    # The manifest of the real storage is written by collectstatic, which tests do not run.
    settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    Path(settings.STATIC_ROOT).mkdir(exist_ok=True)
    settings.COMPILE_SECONDS = 0  # it takes a second a version; who tests it sets it
    settings.WARM_UP_SECONDS = 0  # most versions that tests activate cannot be loaded; who tests that sets it
    with django_db_blocker.unblock():
        list(provisioning.upgrade())
        for tenant_id in ("acme", "globex"):
            services.provision_tenant(
                tenant_id=tenant_id, name=tenant_id.title(), admin_email=f"admin@{tenant_id}.test", actor="tests"
            )


@pytest.fixture
def acme(db: None) -> Any:
    """A tenant; what a test does in it is rolled back."""
    from tenants.models import Tenant

    return Tenant.objects.get(tenant_id="acme")


@pytest.fixture
def globex(db: None) -> Any:
    """Another tenant; what a test does in it is rolled back."""
    from tenants.models import Tenant

    return Tenant.objects.get(tenant_id="globex")


@pytest.fixture
def committed_tenant(django_db_setup: None, django_db_blocker: Any) -> Iterator[Any]:
    """A tenant of this test alone, whose rows are really committed (for threads, workers and races); deleted after."""
    from django.db import connection

    from tenants import services

    with django_db_blocker.unblock():
        tenant_id = f"t-{uuid.uuid4().hex[:12]}"
        made = services.provision_tenant(
            tenant_id=tenant_id, name=tenant_id, admin_email=f"admin@{tenant_id}.test", actor="tests"
        )
        yield made.tenant
        connection.set_schema_to_public()  # type: ignore[attr-defined]  # django-tenants' own
        services.delete_tenant(tenant=made.tenant, confirm=tenant_id, actor="tests")
        connection.close()


@pytest.fixture(scope="session")
def model_host() -> Iterator[str]:
    """A running model host at the settings' address."""
    from django.conf import settings

    address: str = settings.MODELS_SOCKET
    options = ["--library-sets", str(settings.VAR / "library-sets"), "--warm", "sklearn"]
    host = subprocess.Popen([sys.executable, "-m", "runtimes.host", "--socket", address, *options])
    deadline = time.monotonic() + 30
    while not Path(address).exists():
        assert host.poll() is None, "the model host ended"
        assert time.monotonic() < deadline, "the model host does not listen"
        time.sleep(0.02)
    yield address
    host.terminate()
    host.wait(20)


@pytest.fixture(scope="module")
def furnished(
    django_db_setup: None, django_db_blocker: Any, model_host: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A tenant of this module alone with one of everything (`tests.furnished`), committed; deleted after."""
    from django.conf import settings
    from django.db import connection

    from tenants import services
    from tenants.models import ApiToken
    from tenants.scope import tenant_scope
    from tenants.tables import listener
    from tests.furnished import TENANT_ID, Furnished, furnish

    folder = tmp_path_factory.mktemp("furnished")
    with pytest.MonkeyPatch.context() as patch, django_db_blocker.unblock():
        patch.setattr(settings, "BLOB_CACHE_ROOT", str(folder / "cache"))
        patch.setattr(settings, "FILE_UPLOAD_TEMP_DIR", str(folder / "uploads"))
        made = services.provision_tenant(
            tenant_id=TENANT_ID, name=TENANT_ID, admin_email=f"admin@{TENANT_ID}.test", actor="tests"
        )
        with tenant_scope(made.tenant):
            values = furnish(made.tenant)
        operator, secret = ApiToken.mint(name="tests", scopes=["admin"], all_tenants=True)
        yield Furnished(made.tenant, made.token, secret, values)
        for table in listener._each():  # what a test remembered of changes that it undid
            table.forget_all()
        connection.set_schema_to_public()  # type: ignore[attr-defined]
        operator.delete()
        services.delete_tenant(tenant=made.tenant, confirm=TENANT_ID, actor="tests")
        connection.close()


@pytest.fixture
def client_for() -> Callable[..., Any]:
    """`client_for(tenant, *scopes)`: a client below the tenant's address with a fresh token."""
    from tests.clients import client_of

    return client_of


@pytest.fixture
def operator_client(db: None) -> Any:
    """A client of the operator's surface with a token for all tenants."""
    from tests.clients import operator_client

    return operator_client()


@pytest.fixture(autouse=True)
def _no_tenant_left_over(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test begins and ends with no tenant on its connection."""
    yield
    if "django_db_setup" in request.fixturenames:
        from django.db import connection

        connection.set_schema_to_public()  # type: ignore[attr-defined]
