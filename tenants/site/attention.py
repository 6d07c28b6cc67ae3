"""What needs attention, as a block of a home."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.utils.safestring import SafeString

from tenants.site.parts import Part, Table, Tone, label, when

SHOWN = 10


@dataclass(frozen=True)
class Concern:
    """Something that somebody should look at. what: links to it. word: what is wrong with it. why: a sentence."""

    what: SafeString | str
    word: str
    why: str
    at: datetime | None = None
    tone: Tone = "danger"


def attention_part(concerns: Sequence[Concern]) -> Part | None:
    """The concerns, those of no certain moment first, then the newest; None where there are none."""
    if not concerns:
        return None
    beginning = datetime.max.replace(tzinfo=UTC)
    ranked = sorted(concerns, key=lambda one: one.at or beginning, reverse=True)
    rows = [(one.what, label(one.word, one.tone), one.why, when(one.at)) for one in ranked[:SHOWN]]
    notes = [f"And {len(ranked) - SHOWN} more."] if len(ranked) > SHOWN else []
    return Part("Needs attention", Table(("What", "", "Why", "When"), rows), notes=notes, is_wide=True)
