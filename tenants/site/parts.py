"""The blocks that admin pages are made of. Whatever is in them is escaped by the templates that show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html
from django.utils.safestring import SafeString

from tenants.site.markdown import rendered
from tenants.site.plots import Plot

Tone = Literal["", "info", "success", "warning", "danger"]


@dataclass(frozen=True)
class Table:
    """Rows of cells below headers. empty: what is said, and what to do next, where there are no rows."""

    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]
    empty: str = "Nothing yet."
    template: str = "admin/parts/table.html"


@dataclass(frozen=True)
class Facts:
    """Values by what they are; those that are None or empty are left out."""

    items: Mapping[str, Any]
    empty: str = "Nothing is known."
    template: str = "admin/parts/facts.html"

    @property
    def known(self) -> list[tuple[str, Any]]:
        """The pairs that are shown."""
        return [(name, value) for name, value in self.items.items() if value not in (None, "", [], {})]


@dataclass(frozen=True)
class Text:
    """Text as it was written, such as a log."""

    text: str
    empty: str = "Nothing was written."
    can_copy: bool = False
    template: str = "admin/parts/text.html"


@dataclass(frozen=True)
class Card:
    """Markdown that somebody wrote."""

    text: str
    empty: str = "Nothing was written."
    template: str = "admin/parts/card.html"

    @property
    def html(self) -> SafeString | None:
        """The text as safe HTML; None where there is none."""
        return rendered(self.text) if self.text.strip() else None


@dataclass(frozen=True)
class Part:
    """A block with a title. link: where there is more, as (URL, words). notes: sentences above the content."""

    title: str
    content: Table | Facts | Text | Card | Plot
    link: tuple[str, str] | None = None
    notes: Sequence[str] = ()
    is_wide: bool = False


def link(url: str, text: object) -> SafeString:
    """An anchor."""
    return format_html('<a class="tny-link" href="{}">{}</a>', url, text)


def label(text: object, tone: Tone = "") -> SafeString:
    """A word with a coloured ground."""
    return format_html('<span class="tny-label {}">{}</span>', f"tny-{tone}" if tone else "", text)


def code(text: object) -> SafeString:
    """Something that machines read, in letters of one width."""
    return format_html('<code class="tny-code">{}</code>', text)


def bar(percent: float, words: str) -> SafeString:
    """How far something has come, as a bar and in words."""
    return format_html(
        '<span class="tny-progress"><progress max="100" value="{}"></progress> <span>{}</span></span>',
        f"{max(0.0, min(100.0, percent)):.0f}",
        words,
    )


def size(size_bytes: int | None) -> str:
    """A number of bytes for people."""
    return filesizeformat(size_bytes) if size_bytes is not None else ""


def number(value: Any, digits: int = 6) -> str:
    """A metric's value for people, to so many digits that count."""
    return f"{value:.{digits}g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def numbers(values: Mapping[str, Any], most: int = 3) -> str:
    """The first few metrics in one line, to four digits that count."""
    shown = [f"{name} {number(value, 4)}" for name, value in sorted(values.items())[:most]]
    return ", ".join(shown) + (f" and {len(values) - most} more" if len(values) > most else "")


def when(moment: datetime | None) -> SafeString | str:
    """A moment, which admin.js puts into the reader's zone."""
    if moment is None:
        return ""
    return format_html('<time datetime="{}">{} UTC</time>', moment.isoformat(), f"{moment:%Y-%m-%d %H:%M}")


def when_at(seconds: float) -> SafeString | str:
    """The moment so many seconds after the epoch."""
    return when(datetime.fromtimestamp(seconds, UTC))
