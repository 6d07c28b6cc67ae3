"""The pool as a Django cache."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.cache import caches

from common.errors import TimedOut
from inference import predictions
from inference.pool import client_of, model_pool
from models_registry.loading import load_request, pool_key
from tenants.scope import tenant_scope


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
            predictions.predict(serving, "churn", {"instances": [[1.0, 0, 0, 0]]}, started + 0.3)
        assert time.monotonic() - started < 1.5
        assert isinstance(another.exception(), OSError)


def test_a_deleted_runner_is_loaded_again(acme, serving):
    with tenant_scope(acme):
        key = pool_key(acme, serving)
        caches["models"].get_or_set(key, lambda: load_request(serving))
        assert caches["models"].delete(key)
        assert key not in caches["models"]


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
