"""Plots over time draw each slot where it belongs, and nothing that is not there."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from tenants.site.time_plots import columns, lines

MOMENTS = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute) for minute in range(60)]


def test_a_slot_has_its_column_and_what_failed_stands_on_it() -> None:
    answered, failed = [0.0] * 60, [0.0] * 60
    answered[10], failed[10], answered[59] = 3, 1, 2
    drawing = str(columns(MOMENTS, {"answered": (0, answered), "errors": (3, failed)}, title="Calls").drawing)
    found = re.findall(r'tny-series-(\d)" x="([\d.]+)" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', drawing)
    lower, last, upper = found[0], found[1], found[2]
    assert [one[0] for one in found] == ["0", "0", "3"]
    assert lower[1] == upper[1]
    assert float(upper[2]) + float(upper[3]) == pytest.approx(float(lower[2]), abs=0.2)
    assert float(lower[1]) < float(last[1])


def test_moments_are_told_to_the_reader_in_their_zone() -> None:
    drawing = str(columns(MOMENTS, {"answered": (0, [1.0] * 60)}, title="Calls").drawing)
    assert 'data-moment="2026-01-01T00:10:00+00:00" data-shows="time">00:10<' in drawing
    days = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in range(7)]
    assert 'data-shows="day">02 Jan<' in str(columns(days, {"a": (0, [1.0] * 7)}, title="Calls").drawing)


def test_a_line_has_gaps_where_nothing_is_known() -> None:
    values = [1.0] * 10 + [None] * 10 + [2.0] * 40
    assert str(lines(MOMENTS, {"half": values}, title="Latency").drawing).count("<polyline") == 2


def test_nothing_is_drawn_of_nothing() -> None:
    plot = columns(MOMENTS, {"answered": (0, [0.0] * 60)}, title="Calls", empty="Nothing was asked.")
    assert (plot.drawing, plot.empty) == (None, "Nothing was asked.")
    assert lines(MOMENTS, {"half": [None] * 60}, title="Latency").drawing is None


def test_words_are_escaped() -> None:
    drawing = str(columns(MOMENTS, {"<b>": (0, [1.0] * 60)}, title='"><script>', unit="<i>").drawing)
    assert not re.search("<(b|i|script)>", drawing)
