"""The pool as a Django cache."""

import subprocess
import sys

import pytest
from django.core.cache import caches

from inference.pool import model_pool
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
