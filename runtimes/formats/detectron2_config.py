"""detectron2's configuration beside its weights: found by its content, taken without what leads outside."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from runtimes.bundle import Files
from runtimes.errors import ArtifactRejected, plain
from runtimes.formats.yaml_file import read_yaml

MAX_BYTES = 1 << 18
MARK = re.compile(rb"^\s+META_ARCHITECTURE\s*:", re.MULTILINE)
# what training needed: where data and weights lay, and where results went
LEFT_OUT = frozenset({"OUTPUT_DIR", "DATASETS", "SOLVER", "TEST", "DATALOADER", "VIS_PERIOD", "CUDNN_BENCHMARK"})
LEADS_OUTSIDE = re.compile(r"://|^[/~]|^[A-Za-z]:[\\/]|(^|[/\\])\.\.([/\\]|$)|\$\{?\w")
BASE = "_BASE_"
MOST_DETECTIONS = "DETECTIONS_PER_IMAGE"


def find(files: Files) -> str | None:
    """The path of a detectron2 configuration; None where there is none.

    Raises:
        ArtifactRejected: there are several.
    """
    found = [path for path in files.paths() if path.endswith((".yaml", ".yml")) and _is_config(files, path)]
    if len(found) > 1:
        raise ArtifactRejected("ambiguous_artifact", "The upload holds several detectron2 configurations; send one.")
    return found[0] if found else None


def _is_config(files: Files, path: str) -> bool:
    return files.size(path) <= MAX_BYTES and MARK.search(files.read(path)) is not None


def read(files: Files, path: str) -> dict[str, Any]:
    """The configuration for inference on a CPU, with the artifact's own weights only.

    Raises:
        ArtifactRejected: it builds on another file, or names a path or an address.
    """
    content = read_yaml(files, path)
    if BASE in content:
        raise _refused(f"it builds on another file ({BASE}); write it out whole with cfg.dump()")
    model = content.get("MODEL")
    if not isinstance(model, Mapping) or not isinstance(model.get("META_ARCHITECTURE"), str):
        raise _refused("MODEL.META_ARCHITECTURE is missing")
    kept = {str(key): value for key, value in content.items() if key not in LEFT_OUT}
    kept["MODEL"] = {**model, "WEIGHTS": "", "DEVICE": "cpu"}
    if (most := _most_detections(content.get("TEST"))) is not None:
        kept["TEST"] = {MOST_DETECTIONS: most}
    for name, text in _texts(kept, ""):
        if LEADS_OUTSIDE.search(text):
            raise _refused(f"{plain(name, 80)} names '{plain(text, 80)}', and nothing outside the upload is read")
    return kept


def _most_detections(test: Any) -> int | None:
    """The one thing of how it was tested that decides what it finds."""
    most = test.get(MOST_DETECTIONS) if isinstance(test, Mapping) else None
    return most if type(most) is int and most > 0 else None


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _texts(part, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part, name)


def _refused(why: str) -> ArtifactRejected:
    return ArtifactRejected("invalid_config", f"The detectron2 configuration cannot be used: {why}.")
