"""The pool as a Django cache."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from django.core.cache import caches
from django.core.signals import request_finished

from common.errors import TimedOut
from inference import predictions
from inference.pool import client_of, model_pool
from inference.served import Served
from models_registry.loading import load_request, pool_key
from runtimes.errors import RunnerDied
from tenants.scope import tenant_scope
from tests.inference.conftest import fitted


def test_a_runner_is_had_once_and_kept(acme, serving):
    with tenant_scope(acme):
        key = pool_key(acme, serving)
        pool = model_pool()
        pool.delete(key)
        loads = pool.stats().loads
        for _ in range(3):
            pool.get_or_set(key, lambda: load_request(serving))
        assert pool.stats().loads == loads + 1
        assert key in pool


def test_the_deadline_of_a_prediction_covers_its_load(acme, serving):
    def slow():
        loading.set()
        time.sleep(2.5)
        raise OSError("the storage is away")

    loading = threading.Event()
    with tenant_scope(acme), ThreadPoolExecutor(1) as threads:
        key = pool_key(acme, serving)
        model_pool().delete(key)
        another = threads.submit(client_of(model_pool().address).runner, key, slow)
        assert loading.wait(10)
        started = time.monotonic()
        with pytest.raises(TimedOut):
            predictions.predict(Served.of(serving), "churn", {"instances": [[1.0, 0, 0, 0]]}, started + 0.3)
        assert time.monotonic() - started < 1.5
        assert isinstance(another.exception(), OSError)


def test_a_deleted_runner_is_loaded_again(acme, serving):
    with tenant_scope(acme):
        key = pool_key(acme, serving)
        caches["models"].get_or_set(key, lambda: load_request(serving))
        assert caches["models"].delete(key)
        assert key not in caches["models"]


def test_get_answers_with_a_runner_only_while_one_is_there(acme, serving):
    with tenant_scope(acme):
        key, pool = pool_key(acme, serving), model_pool()
        pool.delete(key)
        assert pool.get(key) is None
        assert pool.get(key, "nothing") == "nothing"
        pool.get_or_set(key, lambda: load_request(serving))

        runner = pool.get(key)

        assert runner.predict(np.array([[2.0, 0, 0, 0]]), deadline_s=10).outputs["prediction"].tolist() == ["yes"]
        assert pool.get_many([key, "other"]).keys() == {key}
        pool.delete(key)
        with pytest.raises(RunnerDied):
            runner.predict(np.array([[2.0, 0, 0, 0]]), deadline_s=10)


def test_a_touched_runner_goes_later(acme, ready_version):
    pool = model_pool()
    pool.clear()
    with tenant_scope(acme):
        for name in ("first", "second"):
            version = ready_version(acme, name, fitted())
            pool.get_or_set(name, partial(load_request, version))

        assert pool.touch("first")

        assert [runner["key"] for runner in pool.stats().runners] == ["second", "first"]
        assert not pool.touch("third")


def test_clear_ends_every_runner_and_the_counters_say_so(acme, serving):
    pool = model_pool()
    pool.clear()
    before = pool.stats()
    assert (before.runners, before.bytes) == ((), 0)
    with tenant_scope(acme):
        pool.get_or_set(pool_key(acme, serving), lambda: load_request(serving))
        pool.get_or_set(pool_key(acme, serving), lambda: load_request(serving))

    pool.clear()

    after = pool.stats()
    assert (after.runners, after.bytes) == ((), 0)
    assert (after.loads, after.misses, after.evictions) == (before.loads + 1, before.misses + 1, before.evictions + 1)
    assert after.load_seconds > before.load_seconds
    assert after.loaded_bytes > before.loaded_bytes
    assert after.evicted_bytes > before.evicted_bytes


def test_django_closes_nothing_at_the_end_of_a_request(acme, serving):
    with tenant_scope(acme):
        runner = model_pool().get_or_set(pool_key(acme, serving), lambda: load_request(serving))
        request_finished.send(sender=None)
        runner.predict(np.array([[2.0, 0, 0, 0]]), deadline_s=10)
    assert model_pool().client is client_of(model_pool().address)


def test_nothing_can_be_put_into_the_pool():
    with pytest.raises(NotImplementedError):
        caches["models"].set("k", object())


def test_a_web_process_imports_nothing_that_loads_models():
    probe = (
        "import sys, tenantry.wsgi, tenantry.urls, inference.api, training.api, models_registry.api;"
        "print([name for name in ('sklearn', 'torch', 'onnxruntime', 'pandas', 'joblib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
