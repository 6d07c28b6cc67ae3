"""What a warm prediction costs this side of the runner: CPU time of the whole WSGI application, called in-process.

    python -m benchmarks.hot_path [--rows 1] [--requests 5000] [--profile]

Runs on servers and a model host of its own, which are gone afterwards. CPU time, not the clock, so that neither the
runner nor a busy machine is counted; the client's half of the runner call is measured apart.
"""

import argparse
import cProfile
import io
import os
import pickle
import pstats
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import django
import orjson

FEATURES = 20
BLOCK = 50  # requests; short enough that some block of many has a core for itself


def main() -> None:
    """Print microseconds of CPU a request, and where they go if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()

    from tests.servers import start_test_servers

    os.environ.update(start_test_servers())
    os.environ["DJANGO_SETTINGS_MODULE"] = "tenantry.settings"
    django.setup()
    host = _start_host()
    try:
        _measure(_Caller(asked.rows), asked.requests, show_profile=asked.profile)
    finally:
        host.terminate()
        host.wait()


class _Caller:
    """A tenant with a logistic regression that serves, and requests for it."""

    def __init__(self, rows: int) -> None:
        from models_registry import services
        from tenants import provisioning
        from tenants import services as tenancy
        from tenants.scope import tenant_scope

        list(provisioning.upgrade())
        made = tenancy.provision_tenant(tenant_id="bench", name="Bench", admin_email="a@bench.test", actor="benchmark")
        with tenant_scope(made.tenant):
            version = _version()
            services.activate(version=version, actor="benchmark")
        self.content = orjson.dumps({"instances": [[0.5] * FEATURES for _ in range(rows)]})
        self.token = made.token
        self.tenant, self.version, self.rows = made.tenant, version, rows

    def __call__(self) -> bytes:
        """The body of one answer."""
        from tenantry.wsgi import application

        said: list[str] = []
        answer = application(self._environ(), lambda status, headers, *_: said.append(status))
        body = b"".join(answer)
        getattr(answer, "close", lambda: None)()
        assert said == ["200 OK"], body
        return body

    def runner(self) -> Any:
        """The runner that answers, with its batch bound: one call as a prediction makes it."""
        import numpy as np

        from inference.pool import model_pool
        from models_registry.loading import pool_key

        runner = model_pool().get_or_set(pool_key(self.tenant, self.version), lambda: None)  # type: ignore[arg-type,return-value]
        return partial(runner.predict, np.full((self.rows, FEATURES), 0.5), deadline_s=30.0)

    def _environ(self) -> dict[str, Any]:
        """As granian makes it."""
        return {
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8000",
            "REQUEST_METHOD": "POST",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/t/bench/api/v1/models/churn/predict",
            "QUERY_STRING": "",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(self.content)),
            "HTTP_HOST": "127.0.0.1:8000",
            "HTTP_AUTHORIZATION": f"Bearer {self.token}",
            "HTTP_USER_AGENT": "benchmark",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(self.content),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }


def _version() -> Any:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from models_registry import execution, services
    from models_registry.blobs import IncomingFile

    rows = np.random.default_rng(7).normal(size=(200, FEATURES))
    fitted = LogisticRegression().fit(rows, rows[:, 0] > 0)
    file = IncomingFile("model.pkl", io.BytesIO(pickle.dumps(fitted)))
    version = services.register_version(model_name="churn", files=[file], actor="benchmark", create=True)
    job = version.inspection_job
    assert job is not None
    job.claim("benchmark")
    execution.inspect(job)
    version.refresh_from_db()
    return version


def _start_host() -> subprocess.Popen[bytes]:
    from django.conf import settings

    host = subprocess.Popen([sys.executable, "-m", "runtimes.host", "--socket", settings.MODELS_SOCKET])
    while not Path(settings.MODELS_SOCKET).exists():
        assert host.poll() is None, "the model host ended"
        time.sleep(0.02)
    return host


class _Answered:
    """In the place of the pool and of a runner: gives at once what the runner once gave."""

    def __init__(self, prediction: object) -> None:
        self._prediction = prediction

    def get_or_set(self, *_: object, **__: object) -> "_Answered":
        return self

    def predict(self, *_: object, **__: object) -> object:
        return self._prediction


def _measure(call: _Caller, requests: int, *, show_profile: bool) -> None:
    print(call().decode()[:200])
    for _ in range(200):
        call()
    ask = call.runner()
    whole, runner = _cpu_us(call, requests), _cpu_us(ask, requests)
    answered = _Answered(ask())
    with patch("inference.predictions.model_pool", lambda: answered):
        ours = _cpu_us(call, requests)
        print(f"rows a request: {call.rows}; microseconds of CPU, of blocks of {BLOCK} requests")
        print("                              best    median")
        print("whole request             {:8.1f}  {:8.1f}".format(*whole))
        print("the client's runner call  {:8.1f}  {:8.1f}".format(*runner))
        print("all but the runner call   {:8.1f}  {:8.1f}".format(*ours))
        print(f"memory, at its highest    {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8.1f} MiB")
        if show_profile:
            _profile(call, requests)


def _cpu_us(call: Callable[[], object], requests: int) -> tuple[float, float]:
    """The best block's and the median block's CPU time a call. On a busy machine the best one is nearer the truth."""
    times = []
    for _ in range(max(requests // BLOCK, 1)):
        started = time.thread_time()
        for _ in range(BLOCK):
            call()
        times.append((time.thread_time() - started) / BLOCK * 1e6)
    return min(times), statistics.median(times)


def _profile(call: Callable[[], object], requests: int) -> None:
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(requests):
        call()
    profile.disable()
    pstats.Stats(profile).sort_stats("tottime").print_stats(60)


if __name__ == "__main__":
    main()
