"""The form by which an admin says where a model's requests go."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from django import forms

from common.http import flatten
from models_registry.deployment_serializers import LimitsSerializer
from models_registry.routing import LANES, WHOLE, Routing, Share
from tenants.site.forms import ChoiceField, JsonField, NumberField, ReasonForm, SwitchField, TextField
from tenants.site.parts import Part
from tenants.site.plots import bars

SHARE = re.compile(r"v?([0-9]{1,9})\s*[:=]\s*([0-9]{1,3})\s*%?")


class SplitField(TextField):
    """Versions and their percents, such as `1: 90, 2: 10`."""

    def clean(self, value: Any) -> tuple[Share, ...]:
        return tuple(_share(part.strip()) for part in super().clean(value).split(",") if part.strip())


def _share(text: str) -> Share:
    found = SHARE.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= 100:
        raise forms.ValidationError(f"'{text[:40]}' is no share: write a version and its percent, such as 2: 10.")
    return Share(int(found[1]), int(found[2]))


class LimitsField(JsonField):
    """Limits of runners by name, within the operator's."""

    def clean(self, value: Any) -> dict[str, Any]:
        found = super().clean(value)
        serializer = LimitsSerializer(data={} if found is None else found)
        if not serializer.is_valid():
            faults = flatten(serializer.errors)
            raise forms.ValidationError(" ".join(f"{name}: {fault}" for name, fault in faults.items()))
        return dict(serializer.validated_data)


class DeploymentForm(ReasonForm):
    """Where a model's requests go: to one version, and a part of them to a canary; or a split of more."""

    serves = ChoiceField(required=False, label="Version", help_text="Answers the requests.")
    canary = ChoiceField(required=False, help_text="Another version that answers a small part of them.")
    percent = NumberField(
        required=False,
        min_value=1,
        max_value=99,
        label="Percent for the canary",
        help_text="Of the requests; those with the same X-Routing-Key stay with one version.",
    )
    shadow = ChoiceField(required=False, help_text="Is asked the same and compared; its answers go nowhere.")
    pinned = SwitchField(required=False, help_text="These versions stay in memory whatever else needs room.")
    split = SplitField(
        required=False,
        label="Split among more",
        help_text="Instead of version and canary: versions and percents that sum to 100, such as 1: 80, 2: 10, 3: 10.",
    )
    sampled = NumberField(
        required=False, min_value=1, max_value=100, label="Percent for the shadow", help_text="All where it is empty."
    )
    lane = ChoiceField(
        required=False, choices=[("", "As in the settings"), *((one, one.capitalize()) for one in LANES)]
    )
    limits = LimitsField(required=False, example='{"memory_bytes": 1073741824}', help_text="Of each runner.")
    field_order = ("serves", "canary", "percent", "shadow", "pinned", "split", "sampled", "lane", "limits", "reason")
    rare = ("split", "sampled", "lane", "limits")

    def __init__(self, *args: Any, numbers: Sequence[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, none in (("serves", "Choose one"), ("canary", "None"), ("shadow", "None")):
            field = self.fields[name]
            if isinstance(field, forms.ChoiceField):
                field.choices = [("", none), *((str(one), f"v{one}") for one in numbers)]

    def clean(self) -> dict[str, Any]:
        said = super().clean() or {}
        if not self.errors and not said.get("split"):
            said["split"] = self._two(said)
        return said

    def _two(self, said: Mapping[str, Any]) -> tuple[Share, ...]:
        """The split between the version and its canary."""
        serves, canary, percent = said.get("serves"), said.get("canary"), said.get("percent")
        if not serves:
            self.add_error("serves", "Choose the version that is to answer.")
            return ()
        if not canary:
            return (Share(int(serves), WHOLE),)
        if canary == serves or not percent:
            wrong = "It answers already." if canary == serves else "Say how many percent go to the canary."
            self.add_error("canary" if canary == serves else "percent", wrong)
            return ()
        return Share(int(serves), WHOLE - percent), Share(int(canary), percent)


def initial_of(routing: Routing) -> dict[str, Any]:
    """What the form says of the present routing."""
    shares = sorted(routing.split, key=lambda share: -share.percent)
    is_simple = len(shares) <= 2
    return {
        "serves": str(shares[0].version) if shares else "",
        "canary": str(shares[1].version) if len(shares) == 2 else "",
        "percent": shares[1].percent if len(shares) == 2 else None,
        "split": "" if is_simple else ", ".join(f"{share.version}: {share.percent}" for share in routing.split),
        "shadow": str(routing.shadow.version) if routing.shadow else "",
        "sampled": routing.shadow.percent if routing.shadow else None,
        "lane": routing.lane or "",
        "pinned": routing.is_pinned,
        "limits": dict(routing.limits) or None,
    }


def routing_part(routing: Routing) -> Part:
    """Where the requests go now, drawn."""
    shares = [(f"v{share.version}", float(share.percent)) for share in routing.split]
    if routing.shadow:
        shares.append((f"v{routing.shadow.version} (shadow)", float(routing.shadow.percent)))
    empty = "Nothing serves now: predictions are refused."
    return Part("Percent of the requests now", bars(shares, title="Percent of the requests", most=WHOLE, empty=empty))


def changes_of(said: dict[str, Any]) -> dict[str, Any]:
    """What the form said, as `deployments.change_deployment` takes it."""
    shadow = Share(int(said["shadow"]), said["sampled"] or 100) if said["shadow"] else None
    return {
        "split": said["split"],
        "shadow": shadow,
        "lane": said["lane"] or None,
        "is_pinned": said["pinned"],
        "limits": said["limits"],
        "reason": said["reason"],
    }
