"""How long the server takes for each page of the admin, in a busy tenant and a busy platform.

    python -m benchmarks.pages --tenants 200 --versions 1000 --runs 500

Asks a running stack over HTTP, one request after the other, with a session as a browser has. p50 and p95 are of what a
request took; CPU is what the web process worked for one, which says something on a busy machine, too.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import django
import requests

from benchmarks.machine import described
from benchmarks.serving.platform import running_stack
from clients.demo.platform import Operator

if TYPE_CHECKING:
    from tenants.models import Tenant

LIMIT_MS = 300
WARM = 3
TENANT_ID = "crowded"


@dataclass(frozen=True)
class Measured:
    """One page: what its requests took."""

    page: str
    p50_ms: float
    p95_ms: float
    cpu_ms: float
    size_kb: float


def main() -> None:
    """Fill, ask, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("--tenants", type=int, default=200)
    parser.add_argument("--versions", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--requests", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path(".bench/pages.json"))
    options = parser.parse_args()
    with running_stack({"WEB_WORKERS": "1"}) as operator:
        var = operator.credentials.parent
        os.environ |= {"TENANTRY_VAR": str(var), "DJANGO_SETTINGS_MODULE": "tenantry.settings"}
        django.setup()
        pages = filled(operator, options.tenants, options.versions, options.runs)
        processes = web_processes(var)
        measured = [measure(operator, page, path, options.requests, processes) for page, path in pages.items()]
    kept = {
        "machine": described(),
        "load": os.getloadavg(),
        "tenants": options.tenants,
        "versions": options.versions,
        "runs": options.runs,
        "pages": [asdict(one) for one in measured],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(kept, indent=1))
    print("\n".join(table(measured)))


def filled(operator: Operator, tenants: int, versions: int, runs: int) -> dict[str, str]:
    """The paths of the pages by their names, once there is something on each."""
    from benchmarks.crowd import fill
    from tenants.models import Tenant

    for number in range(tenants - 1):
        operator.tenant(f"tenant-{number}", f"Tenant {number}")
    operator.tenant(TENANT_ID, "Crowded")
    tenant = Tenant.objects.get(tenant_id=TENANT_ID)
    fill(tenant, versions=versions, runs=runs)
    return {**tenant_pages(tenant), **operator_pages(tenant)}


def tenant_pages(tenant: "Tenant") -> dict[str, str]:
    """The pages of a filled tenant."""
    from benchmarks.crowd import BUSY
    from documents.models import Document
    from inference.models import BatchJob
    from models_registry.models import ModelVersion, RegisteredModel
    from tenants.scope import tenant_scope
    from training.models import Dataset, Run, RunMetric, Search

    with tenant_scope(tenant):
        model = RegisteredModel.objects.get(name=BUSY)
        version = ModelVersion.objects.get(model=model, number=70)
        run = RunMetric.objects.values_list("run", flat=True)[0]
        compared = ",".join(str(pk) for pk in Run.objects.filter(purpose="fit").values_list("pk", flat=True)[:8])
        search = Search.objects.filter(trials__isnull=False)[0].pk
        dataset = Dataset.objects.get(name="customers-0").pk
        batch, document = BatchJob.objects.all()[0].pk, Document.objects.filter(pages__isnull=False)[0].pk
    registry = "models_registry"
    below = {
        "home": "",
        "home, last week": "?span=week",
        "models": f"{registry}/registeredmodel/",
        "models, searched": f"{registry}/registeredmodel/?q=model-1",
        "a model with most versions": f"{registry}/registeredmodel/{model.pk}/change/",
        "its whole history": f"{registry}/registeredmodel/{model.pk}/change/?history",
        "route requests": f"{registry}/registeredmodel/{model.pk}/deployment/",
        "versions": f"{registry}/modelversion/",
        "versions, the last page": f"{registry}/modelversion/?p={1000 // 50}",
        "a version": f"{registry}/modelversion/{version.pk}/change/",
        "activate": f"{registry}/modelversion/{version.pk}/activate/",
        "delete a version": f"{registry}/modelversion/{version.pk}/remove/",
        "try it": f"{registry}/modelversion/{version.pk}/try/",
        "files": f"{registry}/modelversion/{version.pk}/files/",
        "upload": f"{registry}/modelversion/add/",
        "runs": "training/run/",
        "a run": f"training/run/{run}/change/",
        "compare 8 runs": f"training/run/compare/?ids={compared}",
        "start a run": "training/run/add/",
        "searches": "training/search/",
        "a search with 100 trials": f"training/search/{search}/change/",
        "datasets": "training/dataset/",
        "a dataset": f"training/dataset/{dataset}/change/",
        "batch jobs": "inference/batchjob/",
        "a batch job": f"inference/batchjob/{batch}/change/",
        "documents": "documents/document/",
        "a document": f"documents/document/{document}/change/",
        "members": "tenants/membership/",
        "tokens": "tenants/apitoken/",
        "audit trail": "journal/auditevent/",
        "audit trail, the last page": f"journal/auditevent/?p={5000 // 50}",
        "usage": "usage/",
        "settings": "settings/",
    }
    return {name: f"/t/{TENANT_ID}/admin/{path}" for name, path in below.items()}


def operator_pages(tenant: "Tenant") -> dict[str, str]:
    """The operator's pages."""
    below = {
        "home": "",
        "tenants": "tenants/tenant/",
        "a tenant": f"tenants/tenant/{tenant.pk}/change/",
        "people": "tenants/user/",
        "tokens": "tenants/apitoken/",
        "jobs": "tenants/job/",
        "audit trail": "tenants/operatoraudit/",
        "workers": "workers/",
        "model hosts": "model-hosts/",
        "usage": "tenants-usage/",
        "versions": "versions/",
    }
    return {f"operator: {name}": f"/admin/{path}" for name, path in below.items()}


def measure(operator: Operator, page: str, path: str, count: int, processes: list[int]) -> Measured:
    """What so many requests for a page took.

    Raises:
        RuntimeError: it was not shown.
    """
    walls: list[float] = []
    for number in range(count + WARM):
        if number == WARM:
            before = cpu_seconds(processes)
        started = time.perf_counter()
        answer = operator.session.get(operator.url + path, timeout=60)
        walls.append(1e3 * (time.perf_counter() - started))
        _check(page, answer)
    cpu_ms = 1e3 * (cpu_seconds(processes) - before) / count
    cuts = statistics.quantiles(walls[WARM:], n=20)
    return Measured(page, round(cuts[9], 1), round(cuts[18], 1), round(cpu_ms, 1), round(len(answer.content) / 1024, 1))


def _check(page: str, answer: requests.Response) -> None:
    if answer.status_code != 200 or answer.history:
        raise RuntimeError(f"{page}: {answer.status_code} at {answer.url}: {answer.text[:300]}")


def web_processes(var: Path) -> list[int]:
    """The web processes of the stack that keeps its things in this folder."""
    wanted = f"TENANTRY_VAR={var}".encode()
    return [pid for pid, command, environment in _processes() if b"granian" in command and wanted in environment]


def _processes() -> Iterator[tuple[int, bytes, list[bytes]]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            yield int(folder.name), (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is not ours
            continue


def cpu_seconds(processes: list[int]) -> float:
    """How long these processes have worked, all their threads together."""
    ticks = 0
    for pid in processes:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def table(measured: list[Measured]) -> Iterator[str]:
    """The figures as the documents have them."""
    yield "| page | p50 | p95 | CPU | HTML |"
    yield "|---|---:|---:|---:|---:|"
    for one in measured:
        slow = " (over the limit)" if one.p95_ms > LIMIT_MS else ""
        times = " | ".join(f"{value:.0f} ms" for value in (one.p50_ms, one.p95_ms, one.cpu_ms))
        yield f"| {one.page}{slow} | {times} | {one.size_kb:.0f} KB |"


if __name__ == "__main__":
    main()
