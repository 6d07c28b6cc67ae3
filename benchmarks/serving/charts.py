"""A chart of the figures as SVG: one bar a contestant, the longest first, readable on light and dark pages."""

from collections.abc import Sequence
from html import escape

WIDTH = 760
NAMES = 270
BAR = 22
GAP = 8
OURS = "#2563eb"
OTHERS = "#94a3b8"
TEXT = "#64748b"


def bars(title: str, values: Sequence[tuple[str, float]], unit: str) -> str:
    """An SVG document; values: (name, value) in the order of the bars."""
    longest = max(value for _, value in values)
    height = 34 + len(values) * (BAR + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="{escape(title)}">',
        f'<text x="0" y="16" fill="{TEXT}" font-weight="600">{escape(title)}</text>',
    ]
    for number, (name, value) in enumerate(values):
        parts += _bar(28 + number * (BAR + GAP), name, value, value / longest, unit)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(top: int, name: str, value: float, share: float, unit: str) -> list[str]:
    length = max((WIDTH - NAMES - 110) * share, 1)
    middle = top + BAR - 7
    colour = OURS if name.startswith("Tenantry") else OTHERS
    return [
        f'<text x="{NAMES - 8}" y="{middle}" fill="{TEXT}" text-anchor="end">{escape(name)}</text>',
        f'<rect x="{NAMES}" y="{top}" width="{length:.1f}" height="{BAR}" rx="3" fill="{colour}"/>',
        f'<text x="{NAMES + length + 6:.1f}" y="{middle}" fill="{TEXT}">{value:,.0f} {escape(unit)}</text>',
    ]
