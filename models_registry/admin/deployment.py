"""The form by which an admin says where a model's requests go."""

import re
from collections.abc import Sequence
from typing import Any

from django import forms

from common.http import flatten
from models_registry.deployment_serializers import LimitsSerializer
from models_registry.routing import LANES, Routing, Share
from tenants.site.forms import ChoiceField, JsonField, NumberField, ReasonForm, SwitchField, TextField

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
    """Where a model's requests go."""

    split = SplitField(help_text="Versions and percents that sum to 100, such as 1: 90, 2: 10.")
    shadow = ChoiceField(required=False, help_text="Is asked the same and compared; its answers go nowhere.")
    sampled = NumberField(
        required=False, min_value=1, max_value=100, label="Percent for the shadow", help_text="All where it is empty."
    )
    lane = ChoiceField(
        required=False, choices=[("", "As in the settings"), *((one, one.capitalize()) for one in LANES)]
    )
    pinned = SwitchField(required=False, help_text="These versions stay in memory whatever else needs room.")
    limits = LimitsField(required=False, example='{"memory_bytes": 1073741824}', help_text="Of each runner.")
    field_order = ("split", "shadow", "sampled", "lane", "pinned", "limits", "reason")
    rare = ("sampled", "lane", "limits")

    def __init__(self, *args: Any, numbers: Sequence[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        shadow = self.fields["shadow"]
        if isinstance(shadow, forms.ChoiceField):
            shadow.choices = [("", "None"), *((str(one), f"v{one}") for one in numbers)]


def initial_of(routing: Routing) -> dict[str, Any]:
    """What the form says of the present routing."""
    return {
        "split": ", ".join(f"{share.version}: {share.percent}" for share in routing.split),
        "shadow": str(routing.shadow.version) if routing.shadow else "",
        "sampled": routing.shadow.percent if routing.shadow else None,
        "lane": routing.lane or "",
        "pinned": routing.is_pinned,
        "limits": dict(routing.limits) or None,
    }


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
