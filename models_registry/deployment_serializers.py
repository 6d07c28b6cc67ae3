"""The JSON of where a model's requests go."""

from typing import Any

from django.conf import settings
from rest_framework import serializers

from models_registry.routing import LANES, MOST_SHARES, WHOLE, Share
from models_registry.serializers import ReasonSerializer
from tenants.serializers import LARGEST_BIGINT, LARGEST_INT, Strict


class ShareSerializer(Strict):
    """A version and its percent of the requests."""

    version = serializers.IntegerField(min_value=1, max_value=LARGEST_INT)
    percent = serializers.IntegerField(min_value=1, max_value=WHOLE)


class ShadowSerializer(Strict):
    """A version that is asked beside who answers, and for how many of the requests."""

    version = serializers.IntegerField(min_value=1, max_value=LARGEST_INT)
    percent = serializers.IntegerField(min_value=1, max_value=WHOLE, default=WHOLE)


class SecondsField(serializers.FloatField):
    """A number of seconds, and nothing that could be read as one."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float) or not abs(data) <= LARGEST_INT:
            raise serializers.ValidationError("This is not a number.")
        return super().to_internal_value(data)


class LimitsSerializer(Strict):
    """What each runner of the model may use; what is left out is as usual. The operator bounds each of them."""

    memory_bytes = serializers.IntegerField(min_value=32 << 20, max_value=LARGEST_BIGINT, required=False)
    call_seconds = SecondsField(min_value=0.1, max_value=86_400, required=False)
    load_seconds = SecondsField(min_value=1, max_value=86_400, required=False)
    reply_bytes = serializers.IntegerField(min_value=1024, max_value=LARGEST_BIGINT, required=False)
    rows = serializers.IntegerField(min_value=1, max_value=LARGEST_INT, required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        bounds = settings.MODEL_LIMITS
        if above := {name: f"At most {bounds[name]} here." for name, value in attrs.items() if value > bounds[name]}:
            raise serializers.ValidationError(above)
        return attrs


class DeploymentChangeSerializer(ReasonSerializer):
    """What is to change; what is left out stays. shadow, lane: null for none.

    split: whole percents that sum to 100, between 10 versions at most. expected_version: as `activate` has it.
    expected_activation: the number of the newest activation, 0 for none.
    """

    split = serializers.ListField(child=ShareSerializer(), min_length=1, max_length=MOST_SHARES, required=False)
    shadow = ShadowSerializer(required=False, allow_null=True)
    lane = serializers.ChoiceField(LANES, required=False, allow_null=True)
    pinned = serializers.BooleanField(required=False)
    limits = LimitsSerializer(required=False)
    expected_version = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=LARGEST_INT)
    expected_activation = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=LARGEST_INT)

    def changes(self) -> dict[str, Any]:
        """The keyword arguments of `deployments.change_deployment`."""
        said = dict(self.validated_data)
        if "split" in said:
            said["split"] = tuple(Share(**share) for share in said["split"])
        if said.get("shadow"):
            said["shadow"] = Share(**said["shadow"])
        if "pinned" in said:
            said["is_pinned"] = said.pop("pinned")
        return said


class DeploymentSerializer(serializers.Serializer[Any]):
    """Where a model's requests go. version: the one with the largest share; null where nothing serves. activation: the
    number of the newest one, which says so; 0 before the first."""

    model = serializers.CharField()
    activation = serializers.IntegerField()
    version = serializers.IntegerField(allow_null=True)
    split = ShareSerializer(many=True)
    shadow = ShadowSerializer(allow_null=True)
    lane = serializers.ChoiceField(LANES, allow_null=True)
    pinned = serializers.BooleanField()
    limits = LimitsSerializer()
    reason = serializers.CharField()
    actor = serializers.CharField()
    since = serializers.DateTimeField(allow_null=True)
