"""What is pinned is in memory again after each start of the model host, before the machine is ready."""

import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.test import Client

from inference import preloading
from inference.pool import client_of
from models_registry.loading import pool_key
from models_registry.models import Activation
from tenants.scope import tenant_scope
from tests.inference.conftest import fitted
from tests.runtimes import hosts


@pytest.fixture
def own_host(settings):
    """A model host that the test may kill: `.process`, and `.restart()`."""
    with tempfile.TemporaryDirectory(prefix="tnt") as name:
        folder = Path(name)
        host = SimpleNamespace(process=hosts.start(folder)[0])

        def restart():
            host.process.kill()
            host.process.wait()
            host.process = hosts.start(folder)[0]

        host.restart = restart
        settings.MODELS_SOCKET = str(folder / "models.sock")
        yield host
        host.process.kill()
        host.process.wait()


def pin(tenant, version):
    with tenant_scope(tenant):
        newest = Activation.objects.filter(model=version.model)[0]
        Activation.objects.filter(pk=newest.pk).update(routing={**newest.routing, "pinned": True})


def pinned(client):
    return {runner["key"] for runner in client.stats().runners if runner["pinned"]}


def test_every_tenants_pinned_versions_are_loaded(acme, globex, ready_version, settings):
    from models_registry import services

    versions = {tenant: ready_version(tenant, "churn", fitted()) for tenant in (acme, globex)}
    others = {tenant: ready_version(tenant, "other", fitted()) for tenant in (acme, globex)}
    for tenant in (acme, globex):
        with tenant_scope(tenant):
            services.activate(version=versions[tenant], actor="tests")
            services.activate(version=others[tenant], actor="tests")
        pin(tenant, versions[tenant])
    client = client_of(settings.MODELS_SOCKET)
    client.clear()

    assert preloading.preload(client) == 2

    assert pinned(client) == {pool_key(tenant, version) for tenant, version in versions.items()}
    for runner in client.stats().runners:
        client.pin(runner["key"], pinned=False)


def test_a_pinned_version_that_cannot_be_loaded_is_left_out(acme, serving, settings, caplog):
    pin(acme, serving)
    with tenant_scope(acme):
        serving.format = "onnx"  # it is none
        serving.save()
    client = client_of(settings.MODELS_SOCKET)
    client.clear()

    assert preloading.preload(client) == 0

    assert "not_preloaded" in caplog.text
    client.pin(pool_key(acme, serving), pinned=False)


def test_a_killed_hosts_successor_is_ready_once_the_pinned_are_loaded(
    committed_tenant, ready_version, own_host, settings, monkeypatch
):
    from models_registry import services

    monkeypatch.setattr(preloading, "AGAIN_SECONDS", 0.05)
    version = ready_version(committed_tenant, "churn", fitted())
    with tenant_scope(committed_tenant):
        services.activate(version=version, actor="tests")
    pin(committed_tenant, version)
    client, ready = client_of(settings.MODELS_SOCKET), Client()
    assert ready.get("/readyz").json()["missing"] == ["models"]
    threading.Thread(target=preloading.attend, daemon=True).start()
    for _ in range(2):
        assert hosts.eventually(lambda: ready.get("/readyz").status_code == 200, 30)
        assert pinned(client) == {pool_key(committed_tenant, version)}
        own_host.restart()
    assert hosts.eventually(client.is_ready, 30)


def test_a_process_attends_its_host_once(settings, monkeypatch):
    started = []
    monkeypatch.setattr(preloading, "_attendant", None)
    monkeypatch.setattr(preloading, "attend", lambda: started.append(1))
    settings.MODELS_SOCKET = ""
    preloading.start()
    settings.MODELS_SOCKET = "/nonexistent/models.sock"
    for _ in range(2):
        preloading.start()
    assert hosts.eventually(lambda: started == [1])
