"""Markdown that members write, as HTML that is safe in any page."""

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

TAGS = {
    *("p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}
SCHEMES = {"http", "https", "mailto"}
MOST_CHARS = 50_000

_parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


def rendered(text: str) -> SafeString:
    """The HTML of a text: headings, lists, tables, code and links; no images, no scripts, no styles.

    Written HTML comes out as the words that it is. Of a very long text, the beginning is shown.
    """
    html = nh3.clean(
        _parser.render(text[:MOST_CHARS]),
        tags=TAGS,
        attributes={"a": {"href"}},
        url_schemes=SCHEMES,
        link_rel="noopener noreferrer nofollow",
    )
    return mark_safe(html)  # noqa: S308 nh3 has let it through
