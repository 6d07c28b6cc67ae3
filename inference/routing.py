"""Which version answers a request: the one that serves, or the one the request names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import Conflict, Invalid, Malformed, NotFound
from models_registry.models import Deployment, ModelVersion, RegisteredModel, is_name
from models_registry.selection import metric_value
from tenants.scope import current_tenant

METRICS = ("metrics_reported", "metrics_measured")


@dataclass(frozen=True)
class Route:
    """A version that may answer, and the lane that its model's deployment asks for (None: the platform's default)."""

    model_name: str
    version: ModelVersion
    lane: str | None


def route(model_name: str | None, body: Mapping[str, Any]) -> Route:
    """The version for this model (or the tenant's default model) and the selectors in the body; one query when warm.

    body: checked by `bodies.parse`, so each selector is of its type.

    Raises:
        NotFound: no such model, version or alias.
        Conflict: nothing serves, or the version named is not ready.
        Malformed: more than one selector.
    """
    named = [selector for selector in SELECTORS if body.get(selector) is not None]
    if len(named) > 1:
        raise Malformed(f"Send at most one of {', '.join(SELECTORS)}.", code="ambiguous_body")
    name = model_name or default_model()
    if not named:
        return _serving(name)
    model = _model(name)
    version = SELECTORS[named[0]](model, body[named[0]])
    if not version.is_ready:
        raise Conflict(f"Version {version.number} of {name} is {version.state}, not ready.", code="version_not_ready")
    return Route(name, version, None)


def default_model() -> str:
    """The name of the tenant's default model: the one it set, or its only one that serves.

    Raises:
        Conflict: it set none, and none or several serve.
    """
    if name := current_tenant().default_model:
        return name
    serving = list(
        Deployment.objects.filter(activation__version__isnull=False).values_list("model__name", flat=True)[:2]
    )
    if len(serving) != 1:
        raise Conflict("Set the default model in the settings, or name a model in the path.", code="no_default_model")
    return serving[0]


def _serving(name: str) -> Route:
    deployment = Deployment.objects.select_related("activation__version__bundle").filter(model__name=name).first()
    version = deployment.version if deployment else None
    if deployment is None or version is None:
        _model(name)
        raise Conflict(f"No version of {name} is active; activate one first.", code="no_active_version")
    return Route(name, version, deployment.activation.routing.get("lane"))


def _model(name: str) -> RegisteredModel:
    model = RegisteredModel.objects.filter(name=name).first()
    if model is None:
        raise NotFound(f"There is no model '{name[:100]}'.")
    return model


def _by_number(model: RegisteredModel, number: int) -> ModelVersion:
    if number < 1:
        raise Invalid("A version is a whole number above zero.", fields={"version": str(number)[:40]})
    version = model.versions.select_related("bundle").filter(number=min(number, 2**31 - 1)).first()
    if version is None:
        raise NotFound(f"{model.name} has no version {number}.")
    return version


def _by_alias(model: RegisteredModel, name: str) -> ModelVersion:
    aliases = model.aliases.select_related("version__bundle").filter(name=name)
    alias = aliases.first() if is_name(name) else None
    if alias is None:
        raise NotFound(f"{model.name} has no alias '{name[:100]}'.")
    return alias.version


def _by_metric(model: RegisteredModel, select: Mapping[str, Any]) -> ModelVersion:
    if not isinstance(select.get("metric"), str):
        raise Invalid('select is {"metric": name, "direction": "max" or "min"}.', fields={"select": "metric"})
    direction = select.get("direction", "max")
    if direction not in ("max", "min"):
        raise Invalid("direction is max or min.", fields={"select.direction": str(direction)[:40]})
    metric = select["metric"]
    scored = [
        (value, number)
        for number, reported, measured in model.versions.ready().values_list("number", *METRICS)
        if (value := metric_value(measured.get(metric, reported.get(metric)))) is not None
    ]
    if not scored:
        raise Conflict(f"No ready version of {model.name} has the metric '{metric[:100]}'.", code="no_such_metric")
    sign = 1 if direction == "max" else -1
    return _by_number(model, max(scored, key=lambda entry: (sign * entry[0], entry[1]))[1])


SELECTORS: Mapping[str, Callable[[RegisteredModel, Any], ModelVersion]] = {
    "version": _by_number,
    "alias": _by_alias,
    "select": _by_metric,
}
