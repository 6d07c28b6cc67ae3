"""How much one tenant's predictions suffer from what another one does: its own pace alone, then beside each attack.

    python -m benchmarks.fairness [--seconds 10] [--rate 50] [--lane direct]

Runs a platform of its own, which is gone afterwards; needs wrk. The modest tenant asks at a steady pace over one
connection. The greedy one sends as fast as 32 connections can, or opens 100 uploads that it never ends. Clients share
the machine's cores with the platform: on few of them, the first attack also costs what wrk itself takes.
"""

import argparse
import json
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests

from benchmarks.machine import described
from benchmarks.serving import wrk
from benchmarks.serving.cases import write_models
from benchmarks.serving.platform import running_stack, serve
from clients.demo.platform import Tenant

CONNECTIONS = 32
STALLED = 100
ANNOUNCED_BYTES = 10 << 20
ROWS = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
MODEL = "logistic"


@dataclass(frozen=True)
class Seen:
    """What the modest tenant saw. failed: answers that were not 200."""

    p50_ms: float
    p99_ms: float
    asked: int
    failed: int


def main() -> None:
    """Print what the modest tenant sees, alone and beside each attack, and by how much it is slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second of the modest tenant")
    parser.add_argument("--lane", choices=("direct", "queue"), default="direct")
    asked = parser.parse_args()
    wrk.check()
    print(described())
    with tempfile.TemporaryDirectory() as name, running_stack({"PREDICTION_LANE": asked.lane}) as operator:
        write_models(Path(name))
        modest, greedy = (operator.tenant(who, who)[0] for who in ("modest", "greedy"))
        for tenant in (modest, greedy):
            serve(tenant, MODEL, Path(name) / f"{MODEL}.pkl")
        _pace(modest, asked.rate, 3)
        _compare(modest, greedy, asked)


def _compare(modest: Tenant, greedy: Tenant, asked: argparse.Namespace) -> None:
    attacks: dict[str, Callable[[], str]] = {
        f"{CONNECTIONS} connections without a pause": lambda: _flood(greedy, asked.seconds + 2),
        f"{STALLED} stalled uploads": lambda: _stall(greedy, asked.seconds + 2),
    }
    print(f"{asked.lane} lane, {asked.rate:g} requests a second, {asked.seconds} s each")
    for name, attack in attacks.items():
        alone = _pace(modest, asked.rate, asked.seconds)
        with _going_on(attack) as attacked:
            beside = _pace(modest, asked.rate, asked.seconds)
        slower = 100 * (beside.p50_ms / alone.p50_ms - 1)
        print(f"{name:32} p50 {alone.p50_ms:6.2f} -> {beside.p50_ms:6.2f} ms ({slower:+.0f} %)", end="  ")
        print(f"p99 {alone.p99_ms:6.1f} -> {beside.p99_ms:6.1f} ms  failed {beside.failed} of {beside.asked}", end="; ")
        print(attacked.result())


def _pace(tenant: Tenant, rate: float, seconds: float) -> Seen:
    """Ask at this rate; a late answer delays no later question's start by more than itself."""
    url, times_ms, failed = _url(tenant), [], 0
    begin = time.perf_counter()
    for number in range(int(rate * seconds)):
        time.sleep(max(0.0, begin + number / rate - time.perf_counter()))
        started = time.perf_counter()
        failed += tenant.session.post(url, json=ROWS, timeout=60).status_code != requests.codes.ok
        times_ms.append(1000 * (time.perf_counter() - started))
    return Seen(statistics.median(times_ms), statistics.quantiles(times_ms, n=100)[98], len(times_ms), failed)


@contextmanager
def _going_on(attack: Callable[[], str]) -> Iterator[Future[str]]:
    """The attack, begun a second ago, during the block; afterwards what came of it."""
    with ThreadPoolExecutor(1) as thread:
        going_on = thread.submit(attack)
        time.sleep(1)
        yield going_on


def _flood(tenant: Tenant, seconds: int) -> str:
    sent = wrk.load(_url(tenant), json.dumps(ROWS).encode(), f"Bearer {tenant.token}", CONNECTIONS, seconds)
    return f"it got {sent.requests_per_s:.0f} answers a second"


def _stall(tenant: Tenant, seconds: int) -> str:
    """Open uploads that announce much and send little."""
    address = urlsplit(tenant.base_url)
    head = (
        f"POST {address.path}/api/v1/datasets HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Authorization: Bearer {tenant.token}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {ANNOUNCED_BYTES}\r\n\r\n--x\r\n"
    )
    opened = [socket.create_connection((address.hostname or "", address.port or 80)) for _ in range(STALLED)]
    try:
        for connection in opened:
            connection.sendall(head.encode())
        time.sleep(seconds)
    finally:
        for connection in opened:
            connection.close()
    return f"it held {len(opened)} connections"


def _url(tenant: Tenant) -> str:
    return f"{tenant.base_url}/api/v1/models/{MODEL}/predict"


if __name__ == "__main__":
    main()
