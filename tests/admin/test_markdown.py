"""What members write is shown with its headings and links, and never runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.site.markdown import rendered


def test_a_card_has_headings_lists_tables_code_and_links() -> None:
    html = rendered("# Churn\n\n- one\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n`x` [more](https://example.org/a)")
    for part in ("<h1>Churn</h1>", "<li>one</li>", "<td>1</td>", "<code>x</code>", 'href="https://example.org/a"'):
        assert part in html


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "[x](javascript:alert(1))",
        "[x](data:text/html,<script>alert(1)</script>)",
        "![x](https://elsewhere.example/pixel.png)",
        '<img src=x onerror="alert(1)">',
        "<a href='vbscript:x' style='position:fixed'>x</a>",
        '[x](<https://example.org" onclick="alert(1)>)',
    ],
)
def test_nothing_in_a_card_runs_or_loads(text: str) -> None:
    html = rendered(text).lower()
    for tag in (
        "<script",
        "<img",
        "<style",
        "<iframe",
        'href="javascript',
        'href="data',
        'href="vbscript',
        ' onclick="',
    ):
        assert tag not in html


@given(st.text(max_size=200))
def test_any_text_is_rendered(text: str) -> None:
    assert "<script" not in rendered(text).lower()
