"""Plots are drawn from whatever numbers and words there are."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.site import plots

VALUES = st.floats(allow_nan=True, allow_infinity=True)
WORDS = st.text(alphabet=st.characters(blacklist_categories=("Cs", "Cc")), max_size=40)


def numbers_of(drawing: str) -> list[float]:
    """Every coordinate in a drawing."""
    return [float(text) for text in re.findall(r' (?:x|y|cx|cy|width|height|x1|x2|y1|y2)="([^"]+)"', drawing)]


@given(st.dictionaries(WORDS, st.lists(st.tuples(VALUES, VALUES), max_size=8), max_size=4))
def test_lines_of_any_values_are_sound_and_within_reason(series: dict[str, list[tuple[float, float]]]) -> None:
    plot = plots.lines(series, title="any")
    finite = [
        point
        for points in series.values()
        for point in points
        if all(math.isfinite(value) and abs(value) < plots.TOO_LARGE for value in point)
    ]
    assert (plot.drawing is None) == (not finite)
    if plot.drawing is not None:
        ElementTree.fromstring(plot.drawing)
        assert all(map(math.isfinite, numbers_of(plot.drawing)))


@given(st.lists(st.tuples(WORDS, VALUES), max_size=5))
def test_bars_of_any_values_are_sound(values: list[tuple[str, float]]) -> None:
    plot = plots.bars(values, title="any")
    if plot.drawing is not None:
        ElementTree.fromstring(plot.drawing)
        assert all(0 <= number <= 10_000 for number in numbers_of(plot.drawing))


def test_words_are_shown_as_words() -> None:
    evil = "<script>alert(1)</script>\"'"
    plot = plots.matrix([evil, "b"], [[3, 1], [0, 4]], title=evil)
    assert plot.drawing is not None
    assert "<script" not in plot.drawing
    assert [node.text for node in ElementTree.fromstring(plot.drawing).iter() if node.text == "4"] == ["4"]


@pytest.mark.parametrize("counts", [[], [[1]], [[1, 2], [3]]])
def test_a_matrix_that_is_no_square_is_not_drawn(counts: list[list[float]]) -> None:
    assert plots.matrix(["a", "b"], counts, title="m").drawing is None


def test_a_histogram_has_a_column_a_bin() -> None:
    plot = plots.histogram([0, 1, 2, 3], [5, 0, 2], title="h")
    assert plot.drawing is not None
    assert plot.drawing.count("<rect") == 3


def test_a_long_line_is_thinned_and_keeps_its_ends() -> None:
    plot = plots.lines({"loss": [(float(n), 1 / (n + 1)) for n in range(5000)]}, title="loss")
    assert plot.drawing is not None
    points = re.search(r'points="([^"]+)"', plot.drawing)
    assert points is not None
    pairs = points[1].split()
    assert len(pairs) <= plots.MOST_POINTS + 1
    assert (float(pairs[0].split(",")[0]), float(pairs[-1].split(",")[0])) == (plots.LEFT, plots.WIDTH - plots.RIGHT)
