"""Machines follow what is changed elsewhere, and a worker warms up for a process without a model host."""

import threading
import time

import pytest

from inference import warming
from inference.pool import client_of
from models_registry import deployments, services
from models_registry.loading import pool_key
from models_registry.models import Activation
from models_registry.routing import Share
from models_registry.warming import WARM
from runtimes.errors import ModelError
from tenants.models import Job
from tenants.scope import tenant_scope
from tests.inference.conftest import fitted, registered


@pytest.fixture
def client(settings, model_host):
    return client_of(settings.MODELS_SOCKET)


@pytest.fixture
def two(acme, serving, ready_version, client):
    """The versions 1, which serves, and 2 of `churn`; neither is in memory."""
    versions = serving, ready_version(acme, "churn", fitted("no", "yes"))
    for version in versions:
        client.evict(pool_key(acme, version))
    return versions


def load(client, tenant, version):
    from models_registry.loading import load_request

    with tenant_scope(tenant):
        return client.runner(pool_key(tenant, version), lambda: load_request(version))


def change(tenant, model, **changes):
    """Change the deployment as another machine would: nothing is told to this one."""
    with tenant_scope(tenant):
        deployments.change_deployment(model=model, actor="tests", **changes)


def test_a_machine_that_has_the_model_loads_what_serves_now(acme, two, client):
    first, second = two
    load(client, acme, first)
    change(acme, first.model, split=(Share(1, 50), Share(2, 50)))
    warming.follow(client, acme)
    assert client.resident(pool_key(acme, second))


def test_a_machine_that_does_not_have_the_model_loads_nothing(acme, two, client):
    change(acme, two[0].model, split=(Share(2, 100),))
    warming.follow(client, acme)
    assert not any(client.resident(pool_key(acme, version)) for version in two)


def test_what_is_pinned_is_loaded_and_stays_and_no_longer(acme, two, client):
    first = two[0]
    change(acme, first.model, is_pinned=True)
    warming.follow(client, acme)
    assert pinned(client) == {pool_key(acme, first)}
    with tenant_scope(acme):
        Activation.objects.update(routing={})
    warming.follow(client, acme)
    assert pinned(client) == set()
    assert client.resident(pool_key(acme, first))


def pinned(client):
    return {runner["key"] for runner in client.stats().runners if runner["pinned"]}


def test_runners_get_the_limits_that_are_set_elsewhere(acme, two, client):
    first = two[0]
    load(client, acme, first)
    with tenant_scope(acme):
        Activation.objects.update(routing={"limits": {"rows": 1}})
    warming.follow(client, acme)
    runner = load(client, acme, first)
    with pytest.raises(ModelError, match="at most 1 rows"):
        runner.predict(fitted_rows(2), deadline_s=10)
    before = generations(client, acme, first)
    warming.follow(client, acme)
    assert generations(client, acme, first) == before


def generations(client, tenant, version):
    key = pool_key(tenant, version)
    return [one["generation"] for one in client.stats().runners if one["key"] == key and not one["retired"]]


def fitted_rows(count):
    import numpy as np

    return np.zeros((count, 4))


def test_a_changed_limit_soon_holds_on_the_machine_that_changed_it(committed_tenant, client, model_host):
    with tenant_scope(committed_tenant):
        version = registered("churn", fitted())
        services.activate(version=version, actor="tests")
        load(client, committed_tenant, version)
        deployments.change_deployment(model=version.model, actor="tests", limits={"rows": 1})
    deadline = time.monotonic() + 20
    while is_taken(client, committed_tenant, version):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_taken(client, tenant, version):
    """Whether two rows are taken; clients hear of a drained runner within a quarter of a second."""
    try:
        load(client, tenant, version).predict(fitted_rows(2), deadline_s=10)
    except ModelError as error:
        return "at most 1 rows" not in error.message
    return True


def test_a_worker_warms_up_for_who_has_no_model_host(committed_tenant, client, settings):
    """The activation waits for the job, which a worker does: here, this test."""
    socket = settings.MODELS_SOCKET
    with tenant_scope(committed_tenant):
        version = registered("churn", fitted())
        settings.WARM_UP_SECONDS = 30
        worker = threading.Thread(target=work_once, args=(committed_tenant, settings, socket))
        worker.start()
        settings.MODELS_SOCKET = ""
        activation = services.activate(version=version, actor="tests")
        worker.join()
    assert activation.version_number == 1
    assert client.resident(pool_key(committed_tenant, version))


def work_once(tenant, settings, socket):
    """Work on the first warm-up that is queued, as the worker of a machine with a model host."""
    from django.db import connection

    from inference.tasks import warm

    deadline = time.monotonic() + 20
    while (job := Job.objects.filter(kind=WARM, tenant=tenant).first()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    settings.MODELS_SOCKET = socket
    warm(tenant=str(tenant.uuid), job_id=str(job.pk))
    connection.close()


def test_without_any_worker_nothing_is_changed(committed_tenant, settings, model_host):
    from common.errors import Unavailable

    with tenant_scope(committed_tenant):
        version = registered("churn", fitted())
        settings.WARM_UP_SECONDS, settings.MODELS_SOCKET = 1, ""
        with pytest.raises(Unavailable) as caught:
            services.activate(version=version, actor="tests")
        assert caught.value.code == "warm_up_too_slow"
        assert not Activation.objects.exists()
