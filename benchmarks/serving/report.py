"""Tables and charts of what was measured: medians over the rounds."""

import statistics
from collections.abc import Mapping
from typing import Any

Kept = Mapping[str, Any]
COLUMNS = (("requests_per_s", 32), ("p99_ms", 32), ("p50_ms", 1))


def medians(kept: Kept) -> dict[tuple[str, str, int], dict[str, float]]:
    """The median of each figure by contestant, case and connections."""
    grouped: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for row in kept["rows"]:
        grouped.setdefault((row["contestant"], row["case"], row["connections"]), []).append(row)
    names = ("requests_per_s", "p50_ms", "p99_ms", "failed")
    return {
        key: {name: statistics.median(row[name] for row in rows) for name in names} for key, rows in grouped.items()
    }


def table(kept: Kept) -> str:
    """A Markdown table a case: the fastest first."""
    found = medians(kept)
    parts = [kept["machine"], ""]
    for case in dict.fromkeys(row["case"] for row in kept["rows"]):
        names = {name for name, asked, _ in found if asked == case}
        parts += [f"**{case}**", "", *_lines(found, case, names), ""]
    return "\n".join(parts)


def _lines(found: Mapping[tuple[str, str, int], Mapping[str, float]], case: str, names: set[str]) -> list[str]:
    fastest_first = sorted(names, key=lambda name: -found[name, case, 32]["requests_per_s"])
    ours = found.get(("Tenantry, direct", case, 32), {}).get("requests_per_s")
    lines = [
        "| | requests/s, 32 clients | Tenantry is | p99, 32 clients | p50, 1 client | failed |",
        "|---|---|---|---|---|---|",
    ]
    for name in fastest_first:
        many, one = found[name, case, 32], found[name, case, 1]
        ratio = f"{ours / many['requests_per_s']:.1f} x" if ours and many["requests_per_s"] else ""
        failed = int(many["failed"] + one["failed"])
        lines.append(
            f"| {name} | {many['requests_per_s']:,.0f} | {ratio} "
            f"| {many['p99_ms']:.1f} ms | {one['p50_ms']:.2f} ms | {failed} |"
        )
    return lines
