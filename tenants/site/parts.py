"""The blocks that admin pages are made of. Whatever is in them is escaped by the templates that show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from tenants.site.markdown import rendered

Tone = Literal["", "info", "success", "warning", "danger"]


class Content(Protocol):
    """What a block shows, and the template that shows it."""

    @property
    def template(self) -> str: ...


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
class Figures:
    """A few numbers that are to be seen at a glance: what each is, its value, and a word on it."""

    items: Sequence[tuple[str, Any, str]]
    template: str = "admin/parts/figures.html"


@dataclass(frozen=True)
class Event:
    """Something that happened. what, by: words or links. why: as somebody wrote it."""

    at: datetime
    what: Any
    by: str = ""
    why: str = ""
    tone: Tone = ""

    @property
    def when(self) -> "SafeString | str":
        """The moment, in the reader's zone."""
        return when(self.at)


@dataclass(frozen=True)
class Timeline:
    """What happened, the newest first."""

    events: Sequence[Event]
    empty: str = "Nothing has happened yet."
    template: str = "admin/parts/timeline.html"


@dataclass(frozen=True)
class Step:
    """One of several steps. state: done, now, or to come. link: where it is done, as (URL, words)."""

    title: str
    state: Literal["done", "now", "later"]
    says: str = ""
    link: tuple[str, str] | None = None


@dataclass(frozen=True)
class Steps:
    """Steps in their order, and which of them are done."""

    steps: Sequence[Step]
    template: str = "admin/parts/steps.html"


@dataclass(frozen=True)
class Several:
    """Contents below one another."""

    contents: Sequence[Content]
    template: str = "admin/parts/several.html"


@dataclass(frozen=True)
class Part:
    """A block with a title. link: where there is more, as (URL, words). notes: sentences above the content.

    tabs: other views of the same, as (URL, words, whether it is this one).
    """

    title: str
    content: Content
    link: tuple[str, str] | None = None
    notes: Sequence[str] = ()
    is_wide: bool = False
    tabs: Sequence[tuple[str, str, bool]] = ()


def link(url: str, text: object) -> SafeString:
    """An anchor."""
    return format_html('<a class="tny-link" href="{}">{}</a>', url, text)


def label(text: object, tone: Tone = "") -> SafeString:
    """A word with a coloured ground."""
    return format_html('<span class="tny-label {}">{}</span>', f"tny-{tone}" if tone else "", text)


def tags(values: Mapping[str, Any]) -> SafeString | str:
    """Texts by their names, each pair as a small label."""
    pairs = ((name, text) for name, text in values.items())
    return format_html_join(" ", '<span class="tny-tag"><b>{}</b> {}</span>', pairs) if values else ""


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
