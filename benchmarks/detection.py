"""How well and how fast the built-in page detector learns: mAP@0.5 on pages that it has never seen.

    python -m benchmarks.detection [--pages 400] [--held-out 80] [--seconds 240] [--longest-side 384] [--quick]

Makes pages (`clients.demo.pages`), trains on a model host of its own in a confined runner, as a run of `page_detector`
does, and measures on the held-out pages of the run, and on a PDF that was made with another seed, rendered page by page
and looked at by the served model. `--quick` is the setting of `make demo`. Exits with 1 below `--target`.
"""

import argparse
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from clients.demo import documents as demo
from clients.demo import pages as made
from runtimes import detection
from runtimes.bundle import pack
from runtimes.client import FitReport, HostClient, LoadRequest, Progress
from runtimes.detection import Detection
from runtimes.limits import GIB, Limits
from tests.runtimes import hosts

LIMITS = Limits(memory_bytes=4 * GIB, cpu_seconds=1_200, fit_seconds=900)
QUICK = {
    "pages": demo.LEARNED_PAGES,
    "held_out": demo.HELD_OUT_PAGES,
    "epochs": demo.EPOCHS,
    "seconds": demo.LEARNING_S,
    "longest_side": demo.LONGEST_SIDE,
    "target": 0.7,
}
DPI = 150


def main() -> int:
    """Train, measure and print; 0 if the target is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=400, help="to learn from and to hold out")
    parser.add_argument("--held-out", type=int, default=80, help="of them, to measure on")
    parser.add_argument("--seconds", type=float, default=240.0, help="for learning")
    parser.add_argument("--longest-side", type=int, default=384, help="of the pages that it looks at, in pixels")
    parser.add_argument("--epochs", type=int, default=1000, help="at most; the time ends it before")
    parser.add_argument("--target", type=float, default=0.85)
    parser.add_argument("--quick", action="store_true", help=f"the demo's setting: {QUICK}")
    asked = parser.parse_args()
    if asked.quick:
        parser.set_defaults(**QUICK)
        asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tnt") as folder, hosts.ended(hosts.start(Path(folder))) as client:
        report, artifact = trained(client, asked)
        elsewhere, seconds = looked_at(client, report, artifact)
    print(f"\n{machine.described()}\n")
    for name, value in {**report.metrics, "map50 of a served model on a PDF of another seed": elsewhere}.items():
        print(f"{name:60} {value:8.3f}")
    print(f"{'seconds of the whole run, reading and measuring included':60} {report.duration_s:8.1f}")
    print(f"{'seconds a page: rendering, detection':60} {seconds:8.3f}")
    is_met = report.metrics["map50"] >= asked.target
    print(f"{'met' if is_met else 'MISSED'} (at least {asked.target:g})")
    return 0 if is_met else 1


def trained(client: HostClient, asked: argparse.Namespace) -> tuple[FitReport, bytes]:
    """The report of one run and its artifact."""
    started = time.monotonic()
    data = made.coco_zip(*made.make_pages(asked.pages, seed=1))
    print(f"{asked.pages} pages, {len(data) >> 20} MiB, made in {time.monotonic() - started:.1f} s")
    out = io.BytesIO()
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        report = client.fit(
            tenant="bench",
            trainer="page_detector",
            params={"epochs": asked.epochs, "most_seconds": asked.seconds, "longest_side": asked.longest_side},
            target="label",
            validation={"kind": "holdout", "fraction": asked.held_out / asked.pages, "seed": 7},
            dataset_fd=file.fileno(),
            out=out,
            format_name="coco",
            library_set="torch",
            limits=LIMITS,
            on_progress=_told,
        )
    return report, out.getvalue()


def _told(progress: Progress) -> None:
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in (progress.metrics or {}).items())
    print(f"\r{progress.percent:5.1f} % {progress.stage:12} {numbers:80.80}", end="", flush=True)


def looked_at(client: HostClient, report: FitReport, artifact: bytes, count: int = 30) -> tuple[float, float]:
    """mAP@0.5 of the served model on a PDF that nothing was learned from, and the seconds that a page takes."""
    pdf, layouts = made.make_pages(count, seed=99)
    options: dict[str, Any] = {**report.declared}
    runner = client.runner("bench", lambda: LoadRequest(_bundle(artifact), "bench", "torch", options))
    truth = [[Detection(part.label, 1.0, part.box) for part in layout] for layout in layouts]
    found = []
    with tempfile.TemporaryFile() as file:
        file.write(pdf)
        file.flush()
        started = time.monotonic()
        with client.open_document(document_fd=file.fileno(), media_type="application/pdf") as document:
            for index, size in enumerate(document.pages):
                page = document.render(index, dpi=DPI)
                answer = runner.predict(page.rgb[None], deadline_s=30)
                shape = (page.rgb.shape[0], page.rgb.shape[1])
                points = size.width_pt, size.height_pt
                found.append(
                    [
                        Detection(one.label, one.score, detection.in_points(one.box, shape, points))
                        for one in detection.detections_of(answer, report.declared["labels"], size=shape)
                    ]
                )
    return detection.mean_average_precision(truth, found), (time.monotonic() - started) / count


def _bundle(artifact: bytes) -> int:
    with tempfile.TemporaryFile() as packed:
        pack([("model.pth", io.BytesIO(artifact), len(artifact))], packed)
        return os.open(f"/proc/self/fd/{packed.fileno()}", os.O_RDONLY)


if __name__ == "__main__":
    sys.exit(main())
