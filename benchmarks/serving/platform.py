"""Tenantry itself as a contestant: the whole stack as `make up` runs it, with a tenant, a token and uploaded models."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from benchmarks.serving.cases import Case
from benchmarks.serving.contestants import Endpoint
from clients.demo.platform import Operator, Tenant
from tenantry.stack.up import free_port

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 180.0
NOT_OURS = ("DATABASE_URL", "REDIS_URL", "BROKER_URL", "TENANTRY_VAR", "TENANTRY_MODELS_SOCKET", "PORT")


@dataclass(frozen=True)
class Platform:
    """Tenantry with its defaults, but for `settings`. models: those that it is asked."""

    name: str
    files: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ("logistic", "forest")

    def takes(self, case: Case) -> bool:
        return case.model in self.models

    def classes(self, answer: Any) -> tuple[int, ...]:
        return tuple(int(value) for value in answer["predictions"])

    @contextmanager
    def running(self, model: str) -> Iterator[Callable[[Case], Endpoint]]:
        """The stack with the model uploaded, inspected and active."""
        with running_stack(self.settings) as operator:
            tenant, _ = operator.tenant("bench", "Benchmark")
            serve(tenant, model, self.files / f"{model}.pkl")
            url = f"{tenant.base_url}/api/v1/models/{model}/predict"
            yield lambda case: Endpoint(
                url, json.dumps({"instances": case.rows.tolist()}).encode(), f"Bearer {tenant.token}"
            )


@contextmanager
def running_stack(settings: Mapping[str, str]) -> Iterator[Operator]:
    """A platform of its own over an empty data folder, by its operator; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="tenantry-bench-") as folder:
        Path(folder).chmod(0o711)  # the servers' account passes through to its own folder
        var, port = Path(folder) / "var", free_port("127.0.0.1")
        kept = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
        with (Path(folder) / "stack.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tenantry.stack", "up", "--port", str(port), "--var", str(var)],
                cwd=ROOT,
                env={**kept, **settings},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            operator = Operator(f"http://127.0.0.1:{port}", var / "operator.json")
            _await_ready(operator, process, Path(folder) / "stack.log")
            operator.log_in()
            yield operator
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def serve(tenant: Tenant, model: str, file: Path) -> dict[str, Any]:
    """The version that was made of this file and serves now."""
    tenant.ensure_model(model, "")
    made = tenant.upload(f"models/{model}/versions", {file.name: file.read_bytes()})
    version = tenant.inspected(model, made["number"])
    if version["state"] != "ready":
        raise RuntimeError(f"{model} is {version['state']}: {version.get('reason')}")
    tenant.post(f"models/{model}/versions/{made['number']}/activate")
    return version


def _await_ready(operator: Operator, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the platform did not start: {log.read_text()[-2000:]}")
        try:
            if operator.credentials.exists() and requests.get(f"{operator.url}/readyz", timeout=5).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)
