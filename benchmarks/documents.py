"""How long a document takes with one worker and with two, and what the workers hold in memory meanwhile.

    python -m benchmarks.documents [--pages 30] [--detector model.pth --metadata metadata.json] [--dpi 150]

Runs a platform of its own for each number of workers, which is gone afterwards. Without a detector, one that costs
nothing is made, so that what is measured is the platform: drawing, the ways between processes, storing.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.machine import described
from clients.demo.platform import ENDED, Tenant
from tests.acceptance.stack import Stack, running_stack
from tests.documents import samples

MODEL = "pages"


@dataclass(frozen=True)
class Measured:
    """What one document took. worker_mb: of the process that reads it, the first and the last quarter's mean."""

    workers: int
    pages: int
    seconds: float
    failed: int
    worker_mb: tuple[float, float]


def main() -> None:
    """Print what a document takes by the number of workers, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=30)
    parser.add_argument("--dpi", type=int, default=150)
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--metadata", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    asked = parser.parse_args()
    content = asked.detector.read_bytes() if asked.detector else samples.detector()
    metadata = json.loads(asked.metadata.read_text()) if asked.metadata else {"detection": samples.LAYOUT}
    name = asked.detector.name if asked.detector else "model.onnx"
    print(described())
    found = [_measured(workers, asked.pages, asked.dpi, {name: content}, metadata) for workers in asked.workers]
    for one in found:
        print(
            f"{one.workers} worker(s): {one.pages} pages in {one.seconds:.1f} s, {one.failed} failed; "
            f"the worker's memory {one.worker_mb[0]:.0f} MB at first, {one.worker_mb[1]:.0f} MB at last"
        )
    if len(found) > 1:
        print(f"ratio {found[-1].seconds / found[0].seconds:.2f}")


def _measured(workers: int, pages: int, dpi: int, files: dict[str, bytes], metadata: object) -> Measured:
    threads = str(2 * workers)  # half of them read documents
    with (
        tempfile.TemporaryDirectory() as folder,
        running_stack(Path(folder), DOCUMENT_WORKERS=str(workers), BATCH_THREADS=threads) as stack,
    ):
        tenant = stack.tenant()
        tenant.ensure_model(MODEL, "Reads pages.")
        version = tenant.inspected(MODEL, tenant.upload(f"models/{MODEL}/versions", files, metadata=metadata)["number"])
        if version["state"] != "ready":
            raise SystemExit(f"The detector was rejected: {version['reason']}")
        tenant.post(f"models/{MODEL}/versions/{version['number']}/activate")
        _read(stack, tenant, 2, dpi)  # zygotes are warm and the model is in memory from here on
        seconds, failed, memory = _read(stack, tenant, pages, dpi)
    quarter = max(1, len(memory) // 4)
    ends = (sum(memory[:quarter]) / quarter, sum(memory[-quarter:]) / quarter)
    return Measured(workers, pages, seconds, failed, ends)


def _read(stack: Stack, tenant: Tenant, pages: int, dpi: int) -> tuple[float, int, list[float]]:
    """Seconds from the upload to the end, pages that failed, and the worker's memory in MB, looked at as it went on."""
    worker = max(stack.processes("--queues", "batch"), key=lambda process: process.memory_info().rss)
    began, memory = time.monotonic(), list[float]()
    document = tenant.upload("documents", {"report.pdf": samples.pdf(pages)}, title="Report", dpi=str(dpi))
    while True:
        shown = tenant.get(f"documents/{document['id']}", wait=0.5)
        memory.append(_resident_mb(worker))
        if shown["state"] in ENDED:
            return time.monotonic() - began, shown["failed_pages"], memory


def _resident_mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 1e6)


if __name__ == "__main__":
    main()
