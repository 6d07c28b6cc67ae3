"""Small plots as inline SVG, made of numbers alone."""

from collections.abc import Sequence

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, HEIGHT = 120, 24


def bars(counts: Sequence[int], words: str) -> SafeString | str:
    """A bar a count, the highest as high as the plot. words: what it shows, for who cannot see it."""
    most = max(counts, default=0)
    if most <= 0:
        return ""
    step = WIDTH / len(counts)
    drawn = format_html_join(
        "",
        '<rect x="{}" y="{}" width="{}" height="{}" fill="currentColor" opacity="0.7"></rect>',
        (
            (
                f"{place * step:.1f}",
                f"{HEIGHT * (1 - count / most):.1f}",
                f"{step * 0.9:.1f}",
                f"{HEIGHT * count / most:.1f}",
            )
            for place, count in enumerate(counts)
        ),
    )
    return format_html(
        '<svg width="{}" height="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>',
        WIDTH, HEIGHT, WIDTH, HEIGHT, words, drawn,
    )  # fmt: skip
