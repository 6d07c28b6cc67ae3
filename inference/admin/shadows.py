"""What a model's shadow said, beside what answered."""

from typing import Any

from inference.comparison import Tally
from inference.models import ShadowReport
from models_registry.models import Deployment, RegisteredModel
from tenants.site.parts import Facts, Part, Several, Table, number

SHOWN = 5
SHORT_CHARS = 120


def shadow_part(model: RegisteredModel) -> Part | None:
    """The report of the shadow that a model has now; None where it has none, or nothing was asked yet."""
    now = Deployment.objects.filter(model=model).values("activation")
    found = ShadowReport.objects.filter(activation__in=now).first()
    if found is None:
        return None
    tally = Tally.from_json(found.tally)
    rows = [(_short(one["inputs"]), _short(one["answered"]), _short(one["shadow"])) for one in tally.disagreements]
    empty = "It said the same for every row."
    table = Table(("Asked", "Answered", f"v{found.version_number} said"), rows[:SHOWN], empty)
    return Part(f"v{found.version_number} in the shadow", Several([Facts(_facts(tally)), table]))


def _facts(tally: Tally) -> dict[str, Any]:
    agreement = f"{tally.agreeing_rows / tally.rows:.1%} of {tally.rows:,} rows" if tally.rows else ""
    apart = {
        f"{output} apart by": f"{number(total / count, 3)} on average, {number(most, 3)} at most"
        for output, (count, total, most) in tally.differences.items()
        if most
    }
    return {
        "Says the same": agreement,
        **apart,
        "Takes": f"{_mean_ms(tally.shadow_s, tally)} instead of {_mean_ms(tally.answered_s, tally)}"
        if tally.requests
        else "",
        "Could not answer": f"{tally.failed:,} requests: {tally.last_failure}" if tally.failed else "",
        "Was not asked": f"{tally.dropped:,} requests, since it was behind" if tally.dropped else "",
    }


def _mean_ms(seconds: float, tally: Tally) -> str:
    return f"{1e3 * seconds / tally.requests:.3g} ms"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHORT_CHARS else f"{text[:SHORT_CHARS]}…"
