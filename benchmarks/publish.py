"""Writes what was measured into docs/performance.md: `python -m benchmarks.publish`.

Reads what the benchmarks have left in `.bench/`, replaces the text between the markers of each, and draws the charts.
"""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.serving import charts, report

MEASURED = Path(".bench")
PAGE = Path("docs/performance.md")
PICTURES = Path("docs/pictures")


def main() -> int:
    """Publish each benchmark that has run; 1 when the page lacks a marker."""
    page = PAGE.read_text()
    for name, write in (("serving", _serving), ("many_tenants", _figures), ("runners", _runners)):
        file = MEASURED / f"{name}.json"
        if file.exists():
            page = _between(page, name, write(json.loads(file.read_text())))
    PAGE.write_text(page)
    return 0


def _between(page: str, name: str, text: str) -> str:
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        sys.exit(f"{PAGE} has no place for {name}: {begin} … {end}")
    return f"{before}{begin}\n{text.strip()}\n{end}{after}"


def _serving(kept: dict[str, Any]) -> str:
    """The tables, and a chart for each case."""
    found = report.medians(kept)
    pictures = []
    for case in dict.fromkeys(row["case"] for row in kept["rows"]):
        values = [
            (name, found[name, case, 32]["requests_per_s"])
            for name, asked, many in found
            if (asked, many) == (case, 32)
        ]
        values.sort(key=lambda pair: -pair[1])
        file = f"performance-{case.replace(',', '').replace(' ', '-')}.svg"
        title = f"{case}: requests a second with 32 clients"
        (PICTURES / file).write_text(charts.bars(title, values, "/s"))
        pictures.append(f"![{title}](pictures/{file})")
    return "\n\n".join([*pictures, f"Contestants: {', '.join(kept['contestants'])}.", report.table(kept)])


def _runners(kept: dict[str, Any]) -> str:
    """A table of figures, each with its verdict."""
    rows = [f"| {row['name']} | {row['value']:.3f} {row['unit']} | {row['verdict']} |" for row in kept["figures"]]
    return "\n".join([kept["machine"], "", "| | measured | |", "|---|---|---|", *rows])


def _figures(kept: dict[str, Any]) -> str:
    """A table of names and values."""
    rows = [f"| {name.replace('_', ' ')} | {value} |" for name, value in kept.items() if name != "machine"]
    return "\n".join([kept["machine"], "", "| | |", "|---|---|", *rows])


if __name__ == "__main__":
    sys.exit(main())
