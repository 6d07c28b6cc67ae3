"""The part of the story about documents: a detector is trained on pages, and reads a PDF that it has never seen."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.demo import pages
from clients.demo.console import Console
from clients.demo.pages import Box, Part
from clients.demo.platform import Tenant

DETECTOR = "page-layout"
LEARNED_PAGES, HELD_OUT_PAGES = 150, 30
EPOCHS, LEARNING_S, LONGEST_SIDE = 15, 50.0, 320  # whichever comes first, epochs or seconds
READ_PAGES = 6
SAME = 0.5  # the overlap from which a found box is the true one


@dataclass(frozen=True)
class Reading:
    """What became of a document. true: the parts of its pages. found: of them. told: with the wrong ones."""

    document: dict[str, Any]
    true: int
    found: int
    told: int


def train_detector(tenant: Tenant, console: Console) -> dict[str, Any]:
    """The run that trains a detector on made-up pages, once it has ended."""
    archive = pages.coco_zip(*pages.make_pages(LEARNED_PAGES, seed=1))
    dataset = tenant.upload("datasets", {"pages.zip": archive}, name="pages")
    while dataset["state"] == "profiling":
        dataset = tenant.get(f"datasets/pages/versions/{dataset['digest']}", wait=20)
    console.result(f"data set pages: {LEARNED_PAGES} pages with boxes, digest {dataset['digest'][:12]}")
    seconds = float(os.environ.get("DEMO_LEARNING_S") or LEARNING_S)
    run = tenant.post(
        "runs",
        {
            "trainer": "page_detector",
            "dataset": "pages",
            "target": "label",
            "params": {"epochs": EPOCHS, "most_seconds": seconds, "longest_side": LONGEST_SIDE},
            "validation": {"kind": "holdout", "fraction": HELD_OUT_PAGES / LEARNED_PAGES, "seed": 7},
            "model": DETECTOR,
        },
    )
    return tenant.watch(f"runs/{run['id']}", console.progress)


def read_pdf(tenant: Tenant, console: Console) -> Reading:
    """What the detector finds in a PDF of other pages, held against what is on them."""
    pdf, layouts = pages.make_pages(READ_PAGES, seed=99)
    fields = {"title": f"{READ_PAGES} made-up pages", "model": DETECTOR}
    sent = tenant.upload("documents", {"pages.pdf": pdf}, **fields)
    document = tenant.watch(f"documents/{sent['id']}", console.progress)
    found, told = 0, 0
    for number, layout in enumerate(layouts, start=1):
        detections = tenant.get(f"documents/{sent['id']}/pages/{number}")["detections"] or []
        told += len(detections)
        found += sum(any(_is_it(part, one) for one in detections) for part in layout)
    return Reading(document, sum(map(len, layouts)), found, told)


def keep_overlay(tenant: Tenant, document: str, folder: Path) -> Path:
    """The file that shows the document's first page with its boxes drawn in."""
    kept = folder / "page-1.png"
    kept.write_bytes(tenant.download(f"documents/{document}/pages/1/overlay"))
    return kept


def _is_it(part: Part, one: Mapping[str, Any]) -> bool:
    return bool(one["label"] == part.label and _overlap(part.box, one["box_pt"]) >= SAME)


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    across, down = (min(one[2 + axis], other[2 + axis]) - max(one[axis], other[axis]) for axis in (0, 1))
    shared = max(0.0, across) * max(0.0, down)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if shared else 0.0
