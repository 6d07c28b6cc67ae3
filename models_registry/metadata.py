"""What an uploader declares beside the files of a version, checked once and typed from there on."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from common.errors import Invalid
from runtimes.detection_layout import DetectionLayout
from runtimes.errors import InvalidSignature
from runtimes.signature import Signature

MAX_ENTRIES = 1_000
MAX_KEY_CHARS = 250
MAX_TEXT_CHARS = 10_000
MAX_VALUE_CHARS = 6_000
MAX_DEPTH = 20
MAX_JSON_NODES = 100_000
MAX_MAP_BYTES = 64 << 10
MAX_DECLARED_BYTES = 1 << 20
ELSEWHERE = ("labels",)  # a detector's labels may stand in the metadata's own list

Check = Callable[[Any], str | None]


@dataclass(frozen=True)
class VersionMetadata:
    """metrics: reported, by name. declared: what loading and inspecting take notice of, as it was sent."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    declared: Mapping[str, Any] = field(default_factory=dict)


DECLARED = ("signature", "input_example", "labels", "architecture", "library_set", "detection")


def parse_metadata(value: Any) -> VersionMetadata:
    """The metadata in a JSON value.

    Raises:
        Invalid: with a sentence a field.
    """
    if not isinstance(value, Mapping):
        raise Invalid("metadata is a JSON object.", fields={"metadata": "is not an object"})
    faults = {f"metadata.{name}"[:100]: fault for name, content in value.items() if (fault := _fault(name, content))}
    if faults:
        raise Invalid("The metadata is not right.", fields=faults)
    given = {name: content for name, content in value.items() if content is not None}
    return VersionMetadata(
        metrics=given.get("metrics", {}),
        params=given.get("params", {}),
        tags=given.get("tags", {}),
        description=given.get("description", ""),
        declared={name: given[name] for name in DECLARED if name in given},
    )


def metrics_fault(value: Any) -> str | None:
    """What is wrong with metrics, if anything: they are finite numbers by name."""
    if fault := _map_fault(value):
        return fault
    if bad := [name for name, number in value.items() if not _is_finite(number)]:
        return f"'{bad[0][:80]}' is not a finite number"
    return None


def tags_fault(value: Any) -> str | None:
    """What is wrong with tags, if anything: they are texts by name."""
    if fault := _map_fault(value):
        return fault
    if bad := [name for name, text in value.items() if not isinstance(text, str) or len(text) > MAX_VALUE_CHARS]:
        return f"'{bad[0][:80]}' is not a text of at most {MAX_VALUE_CHARS} characters"
    return None


def storable_fault(value: Any) -> str | None:
    """Why PostgreSQL could not keep this JSON value, if it could not: NaN, NUL, lone surrogates, or far too much."""
    left, nodes = [(value, 0)], 0
    while left:
        node, depth = left.pop()
        nodes += 1
        if depth > MAX_DEPTH:
            return f"is nested more than {MAX_DEPTH} deep"
        if nodes > MAX_JSON_NODES:
            return f"has more than {MAX_JSON_NODES} values"
        if isinstance(node, str) and not _is_text(node):
            return "has a NUL or half a surrogate pair in a text"
        if isinstance(node, float) and not math.isfinite(node):
            return "has a number that is not finite"
        if isinstance(node, Mapping):
            left += [(part, depth + 1) for pair in node.items() for part in pair]
        elif isinstance(node, list | tuple):
            left += [(part, depth + 1) for part in node]
    return None


def _fault(name: str, value: Any) -> str | None:
    check = CHECKS.get(name)
    if check is None:
        return f"is unknown; metadata has {', '.join(CHECKS)}"
    if value is None:
        return None
    return storable_fault([name, value]) or _size_fault(value, MAX_DECLARED_BYTES) or check(value)


def _map_fault(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return "is not an object"
    if len(value) > MAX_ENTRIES:
        return f"has more than {MAX_ENTRIES} entries"
    if any(not name or len(name) > MAX_KEY_CHARS for name in value):
        return f"has a name that is empty or longer than {MAX_KEY_CHARS} characters"
    return _size_fault(value, MAX_MAP_BYTES)


def _size_fault(value: Any, most_bytes: int) -> str | None:
    written = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    size_bytes = len(written.encode(errors="surrogatepass"))
    return f"has {size_bytes} bytes as JSON, and at most {most_bytes} are kept" if size_bytes > most_bytes else None


def _params_fault(value: Any) -> str | None:
    return _map_fault(value)


def _description_fault(value: Any) -> str | None:
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS:
        return f"is not a text of at most {MAX_TEXT_CHARS} characters"
    return None


def _signature_fault(value: Any) -> str | None:
    try:
        Signature.from_json(value)
    except InvalidSignature as error:
        return error.message
    except (TypeError, ValueError):
        return "is not a signature: an object with layout, inputs and outputs"
    return None


def _example_fault(value: Any) -> str | None:
    return None if isinstance(value, list | Mapping) and value else "is a list of rows, or an object of columns"


def _labels_fault(value: Any) -> str | None:
    if isinstance(value, list) and value and all(isinstance(label, str | int | float) for label in value):
        return None
    return "is not a list of class names"


def _architecture_fault(value: Any) -> str | None:
    return None if isinstance(value, list | Mapping) and value else "is not a list of layers"


def _library_set_fault(value: Any) -> str | None:
    return None if isinstance(value, str) and 0 < len(value) <= 100 else "is not the name of a library set"


def _detection_fault(value: Any) -> str | None:
    try:
        DetectionLayout.from_json(value, ELSEWHERE)
    except InvalidSignature as error:
        return error.message
    return None


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_text(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


CHECKS: Mapping[str, Check] = {
    "metrics": metrics_fault,
    "params": _params_fault,
    "description": _description_fault,
    "tags": tags_fault,
    "signature": _signature_fault,
    "input_example": _example_fault,
    "labels": _labels_fault,
    "architecture": _architecture_fault,
    "library_set": _library_set_fault,
    "detection": _detection_fault,
}
