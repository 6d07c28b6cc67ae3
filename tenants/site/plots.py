"""Plots for admin pages, drawn here as SVG: nothing to load, readable without scripts, in the page's own colours.

Whatever text goes into one is escaped. Values that are no finite numbers are left out.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 10, 34
SERIES_COLOURS = 6  # there are classes tny-series-0 … tny-series-5
MOST_POINTS = 400  # a line of more is thinned: no screen shows them
MOST_CLASSES = 20
MOST_BARS = 30
NAME_CHARS, BAR_NAME_CHARS = 28, 19  # letters are larger where a drawing is small
TOO_LARGE, TOO_SMALL = 1e100, 1e-100  # beyond these, differences and their logarithms overflow

Point = tuple[float, float]


@dataclass(frozen=True)
class Plot:
    """A drawing with the words that say what it shows. empty: what is said where there is nothing to draw."""

    drawing: SafeString | None
    legend: Sequence[tuple[int, str]] = ()
    empty: str = "There is nothing to draw yet."
    template: str = "admin/parts/plot.html"


@dataclass(frozen=True)
class Axis:
    """A range of values along a length of pixels, with its ticks. names: of the only values that have a tick."""

    low: float
    high: float
    begin: float
    end: float
    title: str = ""
    names: Mapping[float, str] = field(default_factory=dict)

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self.begin + (self.end - self.begin) * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Some five round values in the range, or those that have names."""
        if self.names:
            return [value for value in self.names if self.low <= value <= self.high]
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step) * step
        return [first + number * step for number in range(int((self.high - first) / step + 1e-9) + 1)]

    def words(self, tick: float) -> str:
        """What is written at a tick."""
        return short(self.names[tick], 14) if self.names else in_words(tick)


def lines(series: Mapping[str, Sequence[Point]], *, title: str, x: str = "", y: str = "", empty: str = "") -> Plot:
    """A line a series over a shared pair of axes; each point says its values when pointed at."""
    kept = {name: _finite(points) for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return nothing(empty)
    across, up = _axes([point for points in kept.values() for point in points], x, y)
    drawn = [
        _line(points, across, up, number % SERIES_COLOURS, name) for number, (name, points) in enumerate(kept.items())
    ]
    legend = [(number % SERIES_COLOURS, name) for number, name in enumerate(kept)] if len(kept) > 1 else []
    return Plot(_framed(title, across, up, drawn), legend)


def scatter(
    points: Sequence[tuple[float, float, str]],
    *,
    title: str,
    x: str,
    y: str,
    marked: Collection[int] = (),
    names: Mapping[float, str] | None = None,
    empty: str = "",
) -> Plot:
    """A dot a point, which says its words when pointed at.

    marked: the places of the points that stand out. names: what is written at values of x instead of numbers.
    """
    kept = [(*point, place in marked) for place, point in enumerate(points) if all(map(_can_draw, point[:2]))]
    if not kept:
        return nothing(empty)
    kept = sorted(kept[:MOST_POINTS] + [point for point in kept[MOST_POINTS:] if point[3]], key=lambda point: point[3])
    across, up = _axes([(one, other) for one, other, _, _ in kept], x, y)
    room = (across.high - across.low) * 0.03  # dots on the frame would be cut
    across = Axis(across.low - room, across.high + room, across.begin, across.end, x, names or {})
    drawn = [
        _dot(across.at(one), up.at(other), 2 if stands_out else 0, words, 7 if stands_out else 4)
        for one, other, words, stands_out in kept
    ]
    return Plot(_framed(title, across, up, drawn))


def bars(values: Sequence[tuple[str, float]], *, title: str, empty: str = "", most: float | None = None) -> Plot:
    """A bar a name, from zero to the left or the right, with its value behind it. most: the length of a whole bar."""
    kept = [(name, value) for name, value in values if _can_draw(value)][:MOST_BARS]
    if not kept:
        return nothing(empty)
    longest = max(most or max(abs(value) for _, value in kept), TOO_SMALL)
    drawn = format_html_join("", "{}", ((_bar(row, name, value, longest),) for row, (name, value) in enumerate(kept)))
    return Plot(svg(title, WIDTH, 12 + 26 * len(kept), drawn))


def histogram(edges: Sequence[float], counts: Sequence[int], *, title: str, x: str = "", empty: str = "") -> Plot:
    """A column a bin. edges: one more than counts, rising."""
    if not counts or len(edges) != len(counts) + 1 or not all(map(_can_draw, edges)) or edges[0] >= edges[-1]:
        return nothing(empty)
    across = Axis(edges[0], edges[-1], LEFT, WIDTH - RIGHT, x)
    up = Axis(0.0, max(counts) or 1, HEIGHT - BOTTOM, TOP)
    drawn = [
        format_html(
            '<rect class="tny-series-0" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
            px(across.at(low) + 0.5),
            px(up.at(count)),
            px(max(across.at(high) - across.at(low) - 1, 0.5)),
            px(up.begin - up.at(count)),
            f"{in_words(low)} to {in_words(high)}: {count}",
        )
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]
    return Plot(_framed(title, across, up, drawn))


def matrix(labels: Sequence[str], counts: Sequence[Sequence[float]], *, title: str, empty: str = "") -> Plot:
    """A square of counts, the darker the more: a row is what was true, a column what was predicted."""
    size = min(len(labels), MOST_CLASSES)
    if not size or len(counts) < size or any(len(row) < size for row in counts[:size]):
        return nothing(empty)
    cell = max(24, min(56, 420 // size))
    most = max(max(row[:size]) for row in counts[:size]) or 1
    cells = (
        (
            _cell(
                LEFT + 60 + column * cell, 8 + row * cell, cell, counts[row][column], most, labels[row], labels[column]
            ),
        )
        for row in range(size)
        for column in range(size)
    )
    names = ((text_at(LEFT + 52, 12 + row * cell + cell / 2, short(labels[row]), "end"),) for row in range(size))
    below = (
        (text_at(LEFT + 60 + (column + 0.5) * cell, 26 + size * cell, short(labels[column], cell // 7), "middle"),)
        for column in range(size)
    )
    drawn = format_html(
        "{}{}{}",
        *(format_html_join("", "{}", made) for made in (cells, names, below)),
    )
    return Plot(svg(title, LEFT + 70 + size * cell, 40 + size * cell, drawn))


def _can_draw(value: float) -> bool:
    return math.isfinite(value) and abs(value) < TOO_LARGE


def nothing(words: str) -> Plot:
    """No drawing, and why."""
    return Plot(None, empty=words) if words else Plot(None)


def _finite(points: Sequence[Point]) -> list[Point]:
    kept = [(float(x), float(y)) for x, y in points if _can_draw(x) and _can_draw(y)]
    step = max(1, math.ceil(len(kept) / MOST_POINTS))
    return kept if step == 1 else [*kept[::step], kept[-1]]


def _axes(points: Sequence[Point], x: str, y: str) -> tuple[Axis, Axis]:
    across = _range([point[0] for point in points], pad=0.0)
    up = _range([point[1] for point in points], pad=0.06)
    return Axis(*across, LEFT, WIDTH - RIGHT, x), Axis(*up, HEIGHT - BOTTOM, TOP, y)


def _range(values: Sequence[float], pad: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low <= max(abs(low), abs(high)) * 1e-9 + TOO_SMALL:  # no two ticks would differ
        room = max(abs(low), abs(high)) * 0.1
        room = room if room > TOO_SMALL else 0.5
        return low - room, high + room
    return low - (high - low) * pad, high + (high - low) * pad


def _round_step(step: float) -> float:
    scale = 10.0 ** math.floor(math.log10(step))
    return scale * next(factor for factor in (1, 2, 5, 10) if factor * scale >= step * 0.999)


def _framed(title: str, across: Axis, up: Axis, drawn: Sequence[SafeString]) -> SafeString:
    """A drawing on its axes."""
    rows = (
        (
            format_html('<line class="tny-grid" x1="{}" x2="{}" y1="{}" y2="{}"/>', LEFT, WIDTH - RIGHT, at, at),
            text_at(LEFT - 8, float(at) + 4, in_words(tick), "end"),
        )
        for tick in up.ticks()
        for at in [px(up.at(tick))]
    )
    columns = ((text_at(across.at(tick), HEIGHT - 14, across.words(tick), "middle"),) for tick in across.ticks())
    titles = format_html(
        "{}{}",
        text_at(WIDTH - RIGHT, HEIGHT - 1, across.title, "end"),
        text_at(LEFT, TOP, up.title, "start"),
    )
    frame = format_html("{}{}{}", format_html_join("", "{}{}", rows), format_html_join("", "{}", columns), titles)
    return svg(title, WIDTH, HEIGHT, format_html("{}{}", frame, format_html_join("", "{}", ((one,) for one in drawn))))


def _line(points: Sequence[Point], across: Axis, up: Axis, colour: int, name: str) -> SafeString:
    path = " ".join(f"{px(across.at(x))},{px(up.at(y))}" for x, y in sorted(points))
    dots = points if len(points) <= 60 else ()
    return format_html(
        '<polyline class="tny-line-{}" points="{}"/>{}',
        colour,
        path,
        format_html_join(
            "",
            "{}",
            ((_dot(across.at(x), up.at(y), colour, f"{name}: {in_words(y)} at {in_words(x)}", 2.5),) for x, y in dots),
        ),
    )


def _dot(x: float, y: float, colour: int, words: str, radius: float) -> SafeString:
    return format_html(
        '<circle class="tny-series-{}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>',
        colour,
        px(x),
        px(y),
        radius,
        words,
    )


def _bar(row: int, name: str, value: float, longest: float) -> SafeString:
    begin, top = 190, 6 + 26 * row
    length = max(abs(value) / longest * (WIDTH - begin - 80), 1)
    shown = value if abs(value) > longest * 1e-9 else 0.0  # what rounding has left of a zero
    return format_html(
        '{}<rect class="tny-series-{}" x="{}" y="{}" width="{}" height="18" rx="2"><title>{}</title></rect>{}',
        text_at(begin - 8, top + 13, short(name, BAR_NAME_CHARS), "end"),
        3 if value < 0 else 0,
        begin,
        top,
        px(min(length, WIDTH - begin - 80)),
        f"{name}: {in_words(value)}",
        text_at(begin + min(length, WIDTH - begin - 80) + 6, top + 13, in_words(shown), "start"),
    )


def _cell(x: float, y: float, size: int, count: float, most: float, true: str, predicted: str) -> SafeString:
    share = count / most
    return format_html(
        '<g><rect class="tny-cell" x="{}" y="{}" width="{}" height="{}" fill-opacity="{}"/>{}<title>{}</title></g>',
        px(x),
        px(y),
        size - 1,
        size - 1,
        f"{0.06 + 0.94 * share:.2f}",
        text_at(x + size / 2, y + size / 2 + 4, in_words(count), "middle", "tny-on" if share > 0.5 else ""),
        f"true {true}, predicted {predicted}: {in_words(count)}",
    )


def text_at(x: float, y: float, words: str, anchor: str, style: str = "") -> SafeString:
    """Words at a place of a drawing."""
    if not words:
        return mark_safe("")
    return format_html('<text x="{}" y="{}" text-anchor="{}" class="{}">{}</text>', px(x), px(y), anchor, style, words)


def svg(title: str, width: float, height: float, drawn: SafeString) -> SafeString:
    """A drawing of this size; title: what it shows, for those who do not see it."""
    return format_html(
        '<svg class="tny-plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>', width, height, title, drawn
    )


def short(words: str, most: int = NAME_CHARS) -> str:
    """The words, or their beginning where they are too long."""
    return words if len(words) <= max(most, 3) else f"{words[: max(most, 3) - 1]}…"


def in_words(value: float) -> str:
    """A number as it stands in a drawing."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}" if abs(value) < 1e6 else f"{value:.3g}"
    return f"{value:.4g}"


def px(value: float) -> str:
    """A length as it stands in a drawing."""
    return f"{value:.1f}"
