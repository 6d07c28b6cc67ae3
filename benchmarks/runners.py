"""What a confined runner costs: time to a first answer, time and CPU a call, memory, and what an eviction gives back.

    python -m benchmarks.runners [--samples 20] [--resident 200] [--evicted 100] [--json PATH]

Runs on a model host of its own, which is gone afterwards; needs no other server. Prints a table that says which targets
are met, and writes the figures as JSON where it is told to.
"""

import argparse
import io
import json
import os
import pickle
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from runtimes.bundle import pack
from runtimes.client import HostClient, LoadRequest
from runtimes.limits import GIB, MIB
from tests.runtimes import hosts

FEATURES = 20
TENANTS = 8
ROW = np.random.default_rng(3).normal(size=(1, FEATURES))
BLOCK = 400  # calls of each kind in turn: a busy moment of the machine meets both, and each finds its own caches warm


@dataclass(frozen=True)
class Model:
    """A file of one format, and the same model in this process."""

    format: str
    path: str
    data: bytes
    row: np.ndarray
    options: Mapping[str, Any]
    predict: Callable[[np.ndarray], object]

    def loader(self, tenant: str = "bench") -> Callable[[], LoadRequest]:
        """Loads it from a packed file that lies on this machine, as a version's does in the local cache."""
        packed = tempfile.TemporaryFile()  # noqa: SIM115  # open for as long as the loader
        pack([(self.path, io.BytesIO(self.data), len(self.data))], packed)

        def load() -> LoadRequest:
            fd = os.open(f"/proc/self/fd/{packed.fileno()}", os.O_RDONLY)
            return LoadRequest(fd, tenant, self.format, self.options)

        return load


@dataclass(frozen=True)
class Figure:
    """One measured number and what it is to be. is_least: the target is a lower bound."""

    name: str
    value: float
    unit: str
    target: float | None = None
    is_least: bool = False

    @property
    def verdict(self) -> str:
        """Whether the target is met; nothing where there is none."""
        if self.target is None:
            return ""
        is_met = self.value >= self.target if self.is_least else self.value <= self.target
        return f"{'met' if is_met else 'MISSED'} ({'at least' if self.is_least else 'at most'} {self.target:g})"


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20, help="first answers of each format")
    parser.add_argument("--calls", type=int, default=4000, help="calls to the runner, and as many in this process")
    parser.add_argument("--resident", type=int, default=200, help="models in memory at once")
    parser.add_argument("--evicted", type=int, default=100, help="runners to evict at once")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tnt") as folder:
        started = hosts.start(Path(folder), "--memory-bytes", str(4 * GIB), "--max-copies", "1")
        with hosts.ended(started) as client:
            figures = _measure(client, asked)
    described = f"{machine.described()}; load average {os.getloadavg()[0]:.1f}"
    print(f"\n{described}\n")
    for figure in figures:
        print(f"{figure.name:58} {figure.value:10.3f} {figure.unit:4} {figure.verdict}")
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        rows = [asdict(figure) | {"verdict": figure.verdict} for figure in figures]
        asked.json.write_text(json.dumps({"machine": described, "figures": rows}, indent=1))


def _measure(client: HostClient, asked: argparse.Namespace) -> list[Figure]:
    models = {"ONNX": (_onnx(), 30.0), "scikit-learn": (_sklearn(), 60.0), "torch": (_torch(), 120.0)}
    figures: list[Figure] = []
    for name, (model, target_ms) in models.items():
        figures += _first_answers(client, name, model, asked.samples, target_ms)
    figures.append(Figure("a byte to another process and back, p50", _there_and_back_ms(asked.calls), "ms"))
    for name in ("ONNX", "scikit-learn"):
        figures += _calls(client, name, models[name][0], asked.calls)
    figures += _one_load(client, models["ONNX"][0])
    figures += _many(client, models["ONNX"][0], asked.resident)
    return figures + _eviction(client, asked.evicted)


def _first_answers(client: HostClient, name: str, model: Model, samples: int, target_ms: float) -> list[Figure]:
    """From asking for a version that is in no runner to its first answer; the library set is warm."""
    loader = model.loader()
    times_ms: list[float] = []
    for number in range(samples + 1):
        key = f"first/{name}/{number}"
        started = time.perf_counter()
        client.runner(key, loader).predict(model.row, deadline_s=120)
        times_ms.append((time.perf_counter() - started) * 1e3)
        private_bytes = client.stats().bytes
        client.evict(key)
    warm_ms = times_ms[1:]  # the first one waits for the zygote
    return [
        Figure(f"{name}: request to first answer, p50", statistics.median(warm_ms), "ms", target_ms),
        Figure(f"{name}: request to first answer, fastest", min(warm_ms), "ms"),
        Figure(f"{name}: private memory of its runner", private_bytes / MIB, "MiB", 15.0 if name == "ONNX" else None),
    ]


def _calls(client: HostClient, name: str, model: Model, calls: int) -> list[Figure]:
    """One row through the runner and in this process, in turn; and the CPU time of a call on this side."""
    runner = client.runner(f"calls/{name}", model.loader())
    ask = partial(runner.predict, deadline_s=30)
    confined_ms: list[float] = []
    own_ms: list[float] = []
    cpu_us: list[float] = []
    for _ in range(max(calls // BLOCK, 2)):
        cpu_started = time.process_time()
        confined_ms += [_timed_ms(ask, model.row) for _ in range(BLOCK)]
        cpu_us.append((time.process_time() - cpu_started) / BLOCK * 1e6)
        own_ms += [_timed_ms(model.predict, model.row) for _ in range(BLOCK)]
    client.evict(f"calls/{name}")
    confined, own = statistics.median(confined_ms), statistics.median(own_ms)
    return [
        Figure(f"{name}: one row through the runner, p50", confined, "ms"),
        Figure(f"{name}: one row in this process, p50", own, "ms"),
        Figure(f"{name}: what the runner adds", confined - own, "ms", 0.2),
        Figure(f"{name}: CPU of a call on the client's side, best block", min(cpu_us), "us"),
    ]


def _there_and_back_ms(calls: int) -> float:
    """What no call to another process can undercut on this machine: two wake-ups, over a Unix socket."""
    near, far = socket.socketpair()
    child = os.fork()
    if child == 0:
        near.close()
        while byte := far.recv(1):
            far.send(byte)
        os._exit(0)
    far.close()

    def ask(_: np.ndarray) -> None:
        near.send(b".")
        near.recv(1)

    times_ms = [_timed_ms(ask, ROW) for _ in range(calls)]
    near.close()
    os.waitpid(child, 0)
    return statistics.median(times_ms)


def _timed_ms(call: Callable[[np.ndarray], object], row: np.ndarray) -> float:
    started = time.perf_counter()
    call(row)
    return (time.perf_counter() - started) * 1e3


def _one_load(client: HostClient, model: Model) -> list[Figure]:
    """Fifty clients that ask for a cold version at once."""
    before, loader = client.stats(), model.loader()
    together = threading.Barrier(50)

    def ask(_: int) -> None:
        own = HostClient(str(client._path))
        together.wait()
        own.runner("fifty", loader).predict(model.row, deadline_s=120)

    started = time.perf_counter()
    with ThreadPoolExecutor(50) as threads:
        list(threads.map(ask, range(50)))
    seconds = time.perf_counter() - started
    client.evict("fifty")
    return [
        Figure("50 clients, one cold version: loads", client.stats().loads - before.loads, "", 1.0),
        Figure("50 clients, one cold version: all answered after", seconds * 1e3, "ms"),
    ]


def _many(client: HostClient, model: Model, count: int) -> list[Figure]:
    """Many small models in memory at once, of several tenants, each of which answers."""
    runners = [client.runner(f"many/{n}", model.loader(f"tenant {n % TENANTS}")) for n in range(count)]
    for runner in runners:
        runner.predict(model.row, deadline_s=60)
    stats = client.stats()
    shared = sum(_pss_bytes(pid) for pid in [*stats.zygotes.values(), *(int(one["pid"]) for one in stats.runners)])
    return [
        Figure("small models in memory at once", len(stats.runners), "", float(count), is_least=True),
        Figure("their private memory together", stats.bytes / GIB, "GiB", 4.0),
        Figure("their and the zygotes' proportional share (PSS)", shared / GIB, "GiB", 4.0),
    ]


def _eviction(client: HostClient, count: int) -> list[Figure]:
    """Evicting many runners one after the other, measured from outside."""
    doomed = list(client.stats().runners)[:count]
    before = {int(one["pid"]): _private_bytes(int(one["pid"])) for one in doomed}
    started = time.perf_counter()
    for one in doomed:
        client.evict(str(one["key"]))
    seconds = time.perf_counter() - started
    returned = 1 - sum(_private_bytes(pid) for pid in before) / max(sum(before.values()), 1)
    return [
        Figure(f"evicting {len(doomed)} runners takes", seconds, "s", 2.0),
        Figure("part of their private memory that is free then", returned * 100, "%", 90.0, is_least=True),
    ]


def _private_bytes(pid: int) -> int:
    return sum(_account(pid, "Private_"))


def _pss_bytes(pid: int) -> int:
    return sum(_account(pid, "Pss:"))


def _account(pid: int, start: str) -> list[int]:
    """Lines of a process's memory account; nothing where it is gone. Only root may read that of a confined process."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return []
    return [1024 * int(line.split()[1]) for line in lines if line.startswith(start)]


def _tensor(dtype: str) -> dict[str, Any]:
    fields = [{"name": "input", "dtype": dtype, "shape": [-1, FEATURES]}]
    return {"signature": {"layout": "tensor", "inputs": fields, "outputs": [], "classes": [0, 1]}}


def _fitted() -> Any:
    from sklearn.linear_model import LogisticRegression

    rows = np.random.default_rng(5).normal(size=(500, FEATURES))
    return LogisticRegression().fit(rows, (rows[:, 0] > 0).astype(int))


def _sklearn() -> Model:
    model = _fitted()
    return Model("sklearn", "model.pkl", pickle.dumps(model), ROW, _tensor("float64"), model.predict)


def _onnx() -> Model:
    import onnxruntime
    from skl2onnx import to_onnx

    model, row = _fitted(), ROW.astype(np.float32)
    data = to_onnx(model, row, options={id(model): {"zipmap": False}}).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options)
    name = session.get_inputs()[0].name
    return Model("onnx", "model.onnx", data, row, _tensor("float32"), lambda rows: session.run(None, {name: rows}))


def _torch() -> Model:
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    layers = [
        {"type": "linear", "in_features": FEATURES, "out_features": 16},
        {"type": "relu"},
        {"type": "linear", "in_features": 16, "out_features": 2},
    ]
    options = _tensor("float32") | {"architecture": layers}
    row = ROW.astype(np.float32)
    return Model("torch", "model.pth", file.getvalue(), row, options, lambda rows: model(torch.from_numpy(rows)))


if __name__ == "__main__":
    main()
