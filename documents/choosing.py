"""Which detection model reads a document."""

from collections.abc import Mapping
from typing import Any

from common.errors import Conflict
from inference.routing import Route, route
from models_registry.models import Deployment, ModelVersion
from tenants.scope import current_tenant

DETECTION = "detection"
MOST_NAMED = 5


def detector(model: str, selectors: Mapping[str, Any]) -> Route:
    """The version of a model that reads documents; of the tenant's only detection model where none is named.

    selectors: `version`, where another than what serves is meant.

    Raises:
        Conflict: there is none, or several and none is named; or what is named detects nothing, or does not serve.
        NotFound: there is no such model or version.
    """
    found = route(model or _only_detector(), selectors)
    task = ModelVersion.objects.filter(pk=found.version.pk).values_list("task", flat=True).first()
    if task != DETECTION:
        raise Conflict(
            f"Version {found.version.number} of {found.model_name} is for {task or 'another task'} and reads no pages; "
            "name a model whose task is detection.",
            code="not_a_detection_model",
        )
    return found


def detectors() -> list[str]:
    """The names of the detection models that serve, the tenant's default model first."""
    serving = Deployment.objects.filter(activation__version__task=DETECTION).order_by("model__name")
    names = list(serving.values_list("model__name", flat=True))
    default = current_tenant().default_model
    return sorted(names, key=lambda name: name != default)


def _only_detector() -> str:
    names = detectors()
    if not names:
        raise Conflict(
            "No detection model serves here: upload one (an ONNX detector, a detectron2 .pth with its config.yaml, or "
            "one that the trainer page_detector made) and activate it, then send the document again.",
            code="no_detection_model",
        )
    if len(names) > 1 and names[0] != current_tenant().default_model:
        raise Conflict(
            f"Several detection models serve ({', '.join(names[:MOST_NAMED])}): name one in `model`, or set the "
            "default model in the settings.",
            code="several_detection_models",
        )
    return names[0]
