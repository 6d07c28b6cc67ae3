"""detectron2's configuration beside its weights: found by its content, taken without what leads outside."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from runtimes.bundle import Files
from runtimes.errors import ArtifactRejected, plain
from runtimes.formats.yaml_file import read_yaml

MAX_BYTES = 1 << 18
MARK = re.compile(rb"""^(_BASE_|[^#\n]*\bMETA_ARCHITECTURE["']?)\s*:""", re.MULTILINE)
# what training needed: where data and weights lay, and where results went
LEFT_OUT = frozenset({"OUTPUT_DIR", "DATASETS", "SOLVER", "TEST", "DATALOADER", "VIS_PERIOD", "CUDNN_BENCHMARK"})
LEADS_OUTSIDE = re.compile(r"://|^[/~]|^[A-Za-z]:[\\/]|(^|[/\\])\.\.([/\\]|$)|\$\{?\w")
BASE = "_BASE_"
MOST_DETECTIONS = "DETECTIONS_PER_IMAGE"
MOST_VALUES = 20_000  # a real configuration has 300; aliases make more of a few lines than anybody could walk through


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
        raise refused(f"it builds on another file ({BASE}); write it out whole with cfg.dump()")
    model = content.get("MODEL")
    if not isinstance(model, Mapping) or not isinstance(model.get("META_ARCHITECTURE"), str):
        raise refused("MODEL.META_ARCHITECTURE is missing")
    kept = {str(key): value for key, value in content.items() if key not in LEFT_OUT}
    kept["MODEL"] = {**model, "WEIGHTS": "", "DEVICE": "cpu"}
    if (most := _most_detections(content.get("TEST"))) is not None:
        kept["TEST"] = {MOST_DETECTIONS: most}
    refuse_what_leads_outside(kept)
    return kept


def refuse_what_leads_outside(config: Mapping[str, Any]) -> None:
    """Go on only if no value names a path, an address or a variable of the environment.

    Raises:
        ArtifactRejected: one does, or there are too many of them to look at.
    """
    try:
        for count, (name, value) in enumerate(_values(config, "")):
            if count > MOST_VALUES:
                raise refused(f"it has more than {MOST_VALUES} values")
            if isinstance(value, str) and LEADS_OUTSIDE.search(value):
                raise refused(f"{plain(name, 80)} names '{plain(value, 80)}', and nothing outside the upload is read")
    except RecursionError as error:
        raise refused("its values are nested without end") from error


def _most_detections(test: Any) -> int | None:
    """The one thing of how it was tested that decides what it finds."""
    most = test.get(MOST_DETECTIONS) if isinstance(test, Mapping) else None
    return most if type(most) is int and most > 0 else None


def _values(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The value and all that are in it, each with its name."""
    yield name, value
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _values(part, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _values(part, name)


def refused(why: str) -> ArtifactRejected:
    """The rejection of a configuration, to be raised."""
    return ArtifactRejected("invalid_config", f"The detectron2 configuration cannot be used: {why}.")
