"""Which pages of a document are wanted, as people write it: `1-3,7`."""

import re
from collections.abc import Sequence

from common.errors import Invalid

PAGES = r" *[1-9][0-9]{0,5}( *- *[1-9][0-9]{0,5})? *"
PATTERN = rf"^{PAGES}(,{PAGES})*$"
MOST_CHARS = 500

Range = tuple[int, int]


def parsed(text: str) -> list[Range]:
    """The ranges that a text names, first and last page of each; none for an empty text, which means all pages.

    Raises:
        Invalid: it names no pages.
    """
    if not text.strip():
        return []
    if len(text) > MOST_CHARS or not re.match(PATTERN, text, re.ASCII):
        raise _wrong(text)
    ranges = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        ranges.append((int(first), int(last or first)))
    if any(first > last for first, last in ranges):
        raise _wrong(text)
    return ranges


def written(ranges: Sequence[Range]) -> str:
    """The text for some ranges; empty for all pages."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def pages_of(ranges: Sequence[Range], total: int) -> list[int]:
    """The numbers of the pages that are meant, in their order, each once, of a document that has so many.

    Raises:
        Invalid: it has no such page.
    """
    beyond = max((last for _, last in ranges), default=0)
    if beyond > total:
        has = "1 page" if total == 1 else f"{total} pages"
        raise Invalid(f"The document has {has}, so there is no page {beyond}.", code="no_such_page")
    if not ranges:
        return list(range(1, total + 1))
    return sorted({number for first, last in ranges for number in range(first, last + 1)})


def _wrong(text: str) -> Invalid:
    return Invalid('pages is a list of pages and ranges, such as "1-3,7".', fields={"pages": text[:100]})
