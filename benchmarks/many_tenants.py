"""Many tenants with a model each, and a pool that holds a fifth of them: what hits and cold loads take.

    python -m benchmarks.many_tenants --tenants 1000

Requests choose their tenant by Zipf's law, so that few are asked often and most seldom. Every answer is checked: each
tenant's model knows a number of its own.
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import requests
from onnx import TensorProto, helper

from benchmarks.machine import described
from benchmarks.serving.platform import running_stack, serve
from clients.demo.platform import Operator, Tenant
from runtimes.client import HostClient

FEATURES = 16
EXPONENT = 1.0
MANY_THREADS = 8


@dataclass(frozen=True)
class Asked:
    """One request: how long it took, and whether the pool had to load for it."""

    seconds: float
    is_cold: bool


def main() -> None:
    """Provision, upload, ask, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_tenants")
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--runner-bytes", type=int, default=11 << 19, help="of one small runner: sizes the pool")
    parser.add_argument("--out", type=Path, default=Path(".bench/many_tenants.json"))
    options = parser.parse_args()
    settings = {"MODEL_MEMORY_BYTES": str(options.tenants // 5 * options.runner_bytes), "PREDICTION_LANE": "direct"}
    with running_stack(settings) as operator:
        host = HostClient(_models_socket(operator.credentials.parent))
        tenants = _provisioned(operator, options.tenants)
        chosen = _zipf(options.requests, options.tenants)
        one_by_one = _one_by_one(tenants, chosen, host)
        kept = {"machine": described(), "tenants": options.tenants, **_figures(one_by_one, host)}
        kept |= _at_once(tenants, chosen, host)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(kept, indent=1))
    print(json.dumps(kept, indent=1))


def _models_socket(var: Path) -> str:
    """Where the running stack's model host listens."""
    lines = (var / "stack.env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if "=" in line)
    return given["TENANTRY_MODELS_SOCKET"].strip("'\"")


def model(number: int) -> bytes:
    """An ONNX file that answers `number` + the sum of the row."""
    nodes = [
        helper.make_node("MatMul", ["rows", "ones"], ["sum"]),
        helper.make_node("Add", ["sum", "number"], ["value"]),
    ]
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, FEATURES])
    value = helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1])
    constants = [
        helper.make_tensor("ones", TensorProto.FLOAT, [FEATURES, 1], [1.0] * FEATURES),
        helper.make_tensor("number", TensorProto.FLOAT, [1], [float(number)]),
    ]
    graph = helper.make_graph(nodes, "sum", [rows], [value], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    encoded: bytes = onnx.ModelProto.SerializeToString(made)
    return encoded


def _provisioned(operator: Operator, count: int) -> list[Tenant]:
    """So many tenants, each with its model active."""

    def furnish(number: int) -> Tenant:
        tenant, _ = operator.tenant(f"many-{number}", f"Many {number}")
        file = operator.credentials.parent / f"many-{number}.onnx"
        file.write_bytes(model(number))
        serve(tenant, "sum", file)
        file.unlink()
        return tenant

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(furnish, range(count)))


def _zipf(count: int, tenants: int) -> np.ndarray:
    """Which tenant each request is for, (count,) int."""
    weights = 1.0 / np.arange(1, tenants + 1) ** EXPONENT
    return np.random.default_rng(7).choice(tenants, size=count, p=weights / weights.sum())


def _ask(tenant: Tenant, number: int) -> float:
    """The seconds that a right answer took.

    Raises:
        RuntimeError: the answer was another tenant's, or none.
    """
    started = time.perf_counter()
    body = {"instances": [[0.0] * FEATURES]}
    answer = tenant.session.post(f"{tenant.base_url}/api/v1/models/sum/predict", json=body, timeout=60)
    seconds = time.perf_counter() - started
    if not answer.ok or np.ravel(answer.json()["predictions"])[0] != number:
        raise RuntimeError(f"tenant {number} got {answer.status_code}: {answer.text[:200]}")
    return seconds


def _one_by_one(tenants: Sequence[Tenant], chosen: np.ndarray, host: HostClient) -> list[Asked]:
    """Each request alone; whether it had to load is what the host counts."""
    asked = []
    loads = host.stats().loads
    for number in chosen.tolist():
        seconds = _ask(tenants[number], number)
        now = host.stats().loads
        asked.append(Asked(seconds, now > loads))
        loads = now
    return asked


def _figures(asked: Sequence[Asked], host: HostClient) -> dict[str, float]:
    hits = [one.seconds for one in asked if not one.is_cold]
    cold = [one.seconds for one in asked if one.is_cold]
    stats = host.stats()
    return {
        "requests": len(asked),
        "hit_rate": round(len(hits) / len(asked), 4),
        **_percentiles("hit", hits),
        **_percentiles("cold", cold),
        "resident": len(stats.runners),
        "pool_mib": round(stats.bytes / (1 << 20)),
        "evictions": stats.evictions,
    }


def _percentiles(name: str, seconds: Sequence[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {}
    cuts = statistics.quantiles(seconds, n=100)
    return {f"{name}_p50_ms": round(cuts[49] * 1e3, 2), f"{name}_p99_ms": round(cuts[98] * 1e3, 2)}


def _at_once(tenants: Sequence[Tenant], chosen: np.ndarray, host: HostClient) -> dict[str, float]:
    """The same requests by several threads, a connection each."""
    local = threading.local()

    def ask(number: int) -> float:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        tenant = Tenant(tenants[number].base_url.partition("/t/")[0], tenants[number].tenant_id, tenants[number].token)
        headers = dict(tenant.session.headers)
        tenant.session = local.session
        tenant.session.headers.update(headers)
        return _ask(tenant, number)

    before = host.stats()
    started = time.perf_counter()
    with ThreadPoolExecutor(MANY_THREADS) as pool:
        seconds = list(pool.map(ask, chosen.tolist()))
    elapsed = time.perf_counter() - started
    after = host.stats()
    loads = after.loads - before.loads
    return {
        "at_once_threads": MANY_THREADS,
        "at_once_requests_per_s": round(len(seconds) / elapsed, 1),
        "at_once_hit_rate": round(1 - loads / len(seconds), 4),
        **_percentiles("at_once", seconds),
    }


if __name__ == "__main__":
    main()
