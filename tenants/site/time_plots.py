"""Plots over slots of time: columns and lines. Their moments come out in the reader's zone (admin.js)."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from tenants.site.plots import LEFT, RIGHT, WIDTH, Axis, Plot, in_words, nothing, px, svg, text_at

HEIGHT, TOP, BOTTOM = 180, 14, 24
LABELS = 6
FAULTS = 3  # the colour of what went wrong

Values = Sequence[float | None]


def columns(
    moments: Sequence[datetime],
    stacks: Mapping[str, tuple[int, Values]],
    *,
    title: str,
    unit: str = "",
    empty: str = "",
) -> Plot:
    """A column a slot, of stacked values by their name, each with its colour. moments: when each slot begins."""
    heights = [sum(values[place] or 0 for _, values in stacks.values()) for place in range(len(moments))]
    if not any(heights):
        return nothing(empty)
    across, up = _axes(len(moments), max(heights), unit)
    drawn: list[SafeString] = []
    lower = [0.0] * len(moments)
    for name, (colour, values) in stacks.items():
        for place, value in enumerate(values):
            if value:
                upper = lower[place] + value
                drawn.append(_column(across, up, (place, lower[place], upper), colour, f"{name}: {in_words(value)}"))
                lower[place] = upper
    legend = [(colour, name) for name, (colour, values) in stacks.items() if any(values)]
    return Plot(_framed(title, moments, across, up, drawn), legend if len(legend) > 1 else ())


def lines(
    moments: Sequence[datetime], series: Mapping[str, Values], *, title: str, unit: str = "", empty: str = ""
) -> Plot:
    """A line a series; slots without a value are gaps."""
    known = [value for values in series.values() for value in values if value is not None]
    if not known:
        return nothing(empty)
    across, up = _axes(len(moments), max(known), unit)
    drawn = [
        one
        for colour, (name, values) in enumerate(series.items())
        for run in _runs(values)
        for one in _line(across, up, run, colour, name)
    ]
    legend = list(enumerate(series)) if len(series) > 1 else ()
    return Plot(_framed(title, moments, across, up, drawn), legend)


def _axes(count: int, most: float, unit: str) -> tuple[Axis, Axis]:
    return Axis(0.0, float(count), LEFT, WIDTH - RIGHT), Axis(0.0, most * 1.05, HEIGHT - BOTTOM, TOP, unit)


def _runs(values: Values) -> Iterator[list[tuple[float, float]]]:
    """The stretches without a gap, each as its points in the middle of their slots."""
    run: list[tuple[float, float]] = []
    for place, value in enumerate(values):
        if value is None:
            if run:
                yield run
            run = []
        else:
            run.append((place + 0.5, value))
    if run:
        yield run


def _column(across: Axis, up: Axis, at: tuple[int, float, float], colour: int, words: str) -> SafeString:
    place, low, high = at
    width = across.at(place + 1) - across.at(place)
    return format_html(
        '<rect class="tny-series-{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
        colour,
        px(across.at(place) + width * 0.1),
        px(up.at(high)),
        px(max(width * 0.8, 0.5)),
        px(max(up.at(low) - up.at(high), 0.5)),
        words,
    )


def _line(across: Axis, up: Axis, run: Sequence[tuple[float, float]], colour: int, name: str) -> Iterator[SafeString]:
    points = " ".join(f"{px(across.at(x))},{px(up.at(y))}" for x, y in run)
    yield format_html('<polyline class="tny-line-{}" points="{}"/>', colour, points)
    for x, y in run if len(run) <= 60 else ():
        yield format_html(
            '<circle class="tny-series-{}" cx="{}" cy="{}" r="2"><title>{}: {}</title></circle>',
            colour,
            px(across.at(x)),
            px(up.at(y)),
            name,
            in_words(y),
        )


def _framed(title: str, moments: Sequence[datetime], across: Axis, up: Axis, drawn: Sequence[SafeString]) -> SafeString:
    grid = (
        (
            format_html('<line class="tny-grid" x1="{}" x2="{}" y1="{}" y2="{}"/>', LEFT, WIDTH - RIGHT, at, at),
            text_at(LEFT - 8, float(at) + 4, in_words(tick), "end"),
        )
        for tick in up.ticks()
        for at in [px(up.at(tick))]
    )
    frame = format_html(
        "{}{}{}",
        format_html_join("", "{}{}", grid),
        format_html_join("", "{}", ((_moment(moments, place, across),) for place in _labelled(len(moments)))),
        text_at(LEFT, TOP - 3, up.title, "start"),
    )
    return svg(title, WIDTH, HEIGHT, format_html("{}{}", frame, format_html_join("", "{}", ((one,) for one in drawn))))


def _labelled(count: int) -> range:
    return range(0, count, max(1, round(count / LABELS)))


def _moment(moments: Sequence[datetime], place: int, across: Axis) -> SafeString:
    """A slot's moment below it: the time, or the day where the plot covers several."""
    moment = moments[place]
    shows_days = moments[-1] - moments[0] > timedelta(days=2)
    return format_html(
        '<text x="{}" y="{}" text-anchor="start" data-moment="{}" data-shows="{}">{}</text>',
        px(across.at(place)),
        HEIGHT - 8,
        moment.isoformat(),
        "day" if shows_days else "time",
        f"{moment:%d %b}" if shows_days else f"{moment:%H:%M}",
    )
